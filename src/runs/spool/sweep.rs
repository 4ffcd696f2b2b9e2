//! The start of the spool, and its trash.

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::{Arc, MutexGuard},
};

use super::{
    FILES_AT_ONCE, Files, Spool, SpoolOpenError,
    disk::{TRASH, empty_trash, in_trash, to_trash},
    hold::Turns,
};
use crate::{
    blobs::{Blobs as _, Folder, list},
    blocking::blocking,
    content::ContentHash,
    store::{Store, StoreError},
    sync::lock,
};

impl Spool {
    /// Counts the files, restores referenced ones from the trash, and sweeps. Also deletes files
    /// from the trash whose retention is over.
    pub(super) async fn scan(self: &Arc<Self>, store: &Store) -> Result<(), SpoolOpenError> {
        let unusable = |error| SpoolOpenError::Io(self.root.clone(), error);
        let root = self.root.clone();
        let files = blocking(move || list(&root, true)).await.map_err(unusable)?;
        self.blobs().room().count(files.iter().map(|file| file.bytes).sum());
        self.delete_released(store).await?;
        let restored = self.restore(store).await?;
        let count = files.len();
        *self.found() = files.into_iter().map(|entry| entry.file).collect();
        let unknown = self.sweep(store).await?;
        let emptied = self.empty_trash().await.map_err(unusable)?;
        if !self.found().is_empty() {
            tracing::info!(
                "a backup reads the spool: files without references are looked for when it ends"
            );
        }
        tracing::info!(
            files = count - unknown,
            mib = self.used() >> 20,
            restored,
            emptied,
            "spool scanned"
        );
        Ok(())
    }

    fn found(&self) -> MutexGuard<'_, Vec<ContentHash>> {
        lock(&self.found)
    }

    /// Moves those of the files that the start found and that the database does not name to the
    /// trash: a crash orphaned them, or the database was restored from an older copy. Returns their
    /// number. While a backup reads the spool, nothing happens: the next call after it goes on. A
    /// bucket is listed now and then.
    pub(in crate::runs) async fn sweep(
        self: &Arc<Self>,
        store: &Store,
    ) -> Result<usize, StoreError> {
        if let Files::Shared(bucket) = &self.files {
            return self.look_after(bucket, store).await;
        }
        let mut turns = Turns::new(&self.root);
        let mut unknown = 0;
        loop {
            let some: Vec<_> = self.found().iter().rev().take(FILES_AT_ONCE).copied().collect();
            if some.is_empty() || !turns.next().await {
                break;
            }
            let _alone = self.gate.write().await;
            let gone = self.unneeded(store, &some).await?;
            let this = Arc::clone(self);
            unknown +=
                blocking(move || gone.into_iter().filter(|file| this.move_to_trash(*file)).count())
                    .await;
            let mut found = self.found();
            let left = found.len() - some.len();
            found.truncate(left);
        }
        if unknown > 0 {
            tracing::warn!(
                files = unknown,
                folder = %self.root.join(TRASH).display(),
                "moved unreferenced files to the trash; they are deleted after \
                    store.trash_retention_days"
            );
        }
        Ok(unknown)
    }

    /// Restores trashed files that the database names, and returns their number. They were trashed
    /// under another database, or under an older copy of this one.
    async fn restore(self: &Arc<Self>, store: &Store) -> Result<usize, SpoolOpenError> {
        let Files::Own(folder) = &self.files else { return Ok(0) };
        let root = self.root.clone();
        let trashed =
            blocking(move || in_trash(&root).map_err(|error| SpoolOpenError::Io(root, error)))
                .await?;
        let mut restored = 0;
        for some in trashed.chunks(FILES_AT_ONCE) {
            let needed = store.needed_files(&self.id, some).await?;
            let (root, folder) = (self.root.clone(), folder.clone());
            let back = move |file: &ContentHash| put_back(&root, &folder, *file);
            restored += blocking(move || needed.iter().filter(|file| back(file)).count()).await;
        }
        Ok(restored)
    }

    /// Deletes files that have been in the trash for `store.trash_retention_days`, and returns
    /// their number.
    pub(in crate::runs) async fn empty_trash(&self) -> io::Result<usize> {
        let (root, after) = (self.root.clone(), self.trash);
        blocking(move || empty_trash(&root, after)).await
    }

    /// Deletes images from the trash that were deleted on request.
    pub(in crate::runs) async fn delete_trashed(&self, store: &Store, images: Vec<ContentHash>) {
        if self.is_shared() {
            return self.release_orphans(store, &images).await;
        }
        let trash = self.root.join(TRASH);
        blocking(move || {
            for image in images {
                match fs::remove_file(trash.join(image.to_hex())) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        tracing::warn!(%error, %image, "failed to delete an image from the trash");
                    }
                    _ => {}
                }
            }
        })
        .await;
    }

    /// Moves a file to the trash. Returns whether it was moved.
    pub(super) fn move_to_trash(&self, file: ContentHash) -> bool {
        match to_trash(&self.root, file) {
            Ok(size) => {
                self.blobs().room().subtract(size);
                true
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, %file, "failed to move an unreferenced file to the \
                        trash");
                }
                false
            }
        }
    }
}

fn put_back(root: &Path, folder: &Folder, file: ContentHash) -> bool {
    let (path, trashed) = (folder.path(file), root.join(TRASH).join(file.to_hex()));
    let subfolder = path.parent().expect("every file is in a folder");
    if path.exists() {
        return false;
    }
    let moved = folder.make(subfolder).and_then(|()| {
        fs::rename(&trashed, &path)?;
        File::open(subfolder)?.sync_all()?;
        path.metadata()
    });
    match moved {
        Ok(metadata) => {
            folder.room().add(metadata.len());
            true
        }
        Err(error) => {
            tracing::warn!(%error, %file, "failed to restore a referenced file from the trash");
            false
        }
    }
}
