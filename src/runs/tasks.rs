//! The background tasks of an instance.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::Runs;

/// Handles of the running background tasks.
pub struct Background(Vec<JoinHandle<()>>);

impl Background {
    /// Waits until all tasks have drained after the service began to stop.
    pub async fn ended(self) {
        for task in self.0 {
            if let Err(error) = task.await {
                tracing::error!(%error, "background task ended unexpectedly");
            }
        }
    }
}

impl Runs {
    /// Starts the background tasks. Without graphs, nothing is scored or finished here.
    pub fn start(self: &Arc<Self>) -> Background {
        let mut tasks = Vec::new();
        if self.scoring.engine().has_graphs() {
            tasks.extend([
                self.watch("scoring", Self::score_pending),
                self.watch("finishing", Self::finish_runs),
            ]);
        }
        tasks.extend([
            self.watch("leadership", Self::lead),
            self.watch("announcing", Self::reconcile),
            self.watch("summaries", Self::summarise_runs),
            self.watch("gauges", Self::report_gauges),
            self.watch("graphs", Self::notice_hanging_graphs),
            self.watch("spool", Self::delete_unreferenced),
            self.watch("deletions", Self::follow_deletions),
            self.watch("trash", Self::empty_trash),
        ]);
        Background(tasks)
    }

    fn watch<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        name: &'static str,
        work: impl Fn(Arc<Self>) -> F + Send + 'static,
    ) -> JoinHandle<()> {
        let this = Arc::clone(self);
        self.supervisor.watch(name, self.stopping(), move || work(Arc::clone(&this)))
    }
}
