//! The spans of a lane: its items' time in the queue, its batches, and the model's runs.
//!
//! A batch belongs to the traces of all its items, but a span has one parent. So `batch` is a child
//! of its first item, and linked to every item. The other items get a `model` span of their own,
//! linked to the batch, so that each trace shows where its time went.

use tracing::Span;

use crate::trace::{self, span};

/// The spans of one item, disabled if traces are off.
pub(super) struct ItemSpans {
    /// The caller that asked for the item.
    asked: Span,
    queue: Span,
}

impl ItemSpans {
    /// Starts the item's time in the queue.
    pub(super) fn queued() -> Self {
        let queue = span!("queue");
        let asked = if queue.is_disabled() { Span::none() } else { Span::current() };
        Self { asked, queue }
    }

    /// Ends the item's time in the queue.
    pub(super) fn taken(&mut self) {
        self.queue = Span::none();
    }
}

/// The spans of a batch. Dropping them ends them.
pub(super) struct BatchSpans {
    /// To be entered while the model runs.
    pub(super) batch: Span,
    _others: Vec<Span>,
}

impl BatchSpans {
    pub(super) fn start<'a>(
        graph: &str,
        items: impl Iterator<Item = &'a ItemSpans> + Clone,
    ) -> Self {
        let asked = items.map(|item| &item.asked);
        let leader = trace::leader(asked.clone());
        let size = asked.clone().count();
        let batch = span!(parent: leader.clone(), "batch", graph, items = size);
        if batch.is_disabled() {
            return Self { batch, _others: Vec::new() };
        }
        trace::link_all(&batch, asked.clone());
        let joint = trace::context(&batch);
        let mut others: Vec<_> = asked.filter(|asked| !asked.is_disabled()).collect();
        if let Some(at) = others.iter().position(|asked| asked.id() == leader) {
            others.remove(at);
        }
        let others = others.into_iter().map(|asked| {
            let model = span!(parent: asked, "model", graph, items = size);
            trace::link(&model, joint.clone());
            model
        });
        Self { batch, _others: others.collect() }
    }
}
