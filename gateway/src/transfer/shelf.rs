//! Links that were given out and files that came or wait to be fetched, each for an hour or as the operator says.
//!
//! Time is the caller's; `F` is a file, which goes when the last of its holders does.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tidemark_protocol::{DatabaseId, RequestId};
use tokio::time::Instant;

use super::RETRIED_MAX;
use super::secret::{Etag, Secret};

/// Links to upload under. Over it the oldest are no good any more.
const PLACES_MAX: usize = 1024;

/// What is known of files.
#[derive(Debug)]
pub(super) struct Shelf<F> {
    places: HashMap<Secret, Place>,
    uploads: HashMap<(DatabaseId, Etag), Upload<F>>,
    downloads: HashMap<Secret, Download<F>>,
}

/// Where a file may be uploaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) database: DatabaseId,
    pub(super) etag: Etag,
    pub(super) expires: Instant,
}

/// A file that came and was not imported yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Upload<F> {
    pub(super) file: F,
    /// Of its import, so that it counts once.
    pub(super) request: RequestId,
    /// When its import began first.
    pub(super) begun: Option<Instant>,
    pub(super) expires: Instant,
}

/// A file that may be fetched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Download<F> {
    pub(super) file: F,
    pub(super) name: String,
    pub(super) expires: Instant,
}

impl<F> Default for Shelf<F> {
    fn default() -> Self {
        Self {
            places: HashMap::new(),
            uploads: HashMap::new(),
            downloads: HashMap::new(),
        }
    }
}

impl<F: Clone> Shelf<F> {
    /// Lets a file come.
    pub(super) fn announce(&mut self, secret: Secret, place: Place, now: Instant) {
        self.expire(now);
        if self.places.len() >= PLACES_MAX {
            let oldest = self.places.iter().min_by_key(|(_, place)| place.expires);
            if let Some(oldest) = oldest.map(|(secret, _)| *secret) {
                self.places.remove(&oldest);
            }
        }
        self.places.insert(secret, place);
    }

    pub(super) fn place(&mut self, secret: Secret, now: Instant) -> Option<Place> {
        self.expire(now);
        self.places.get(&secret).copied()
    }

    /// A file came. One that is there already stays, its import may be running: then says no.
    pub(super) fn put(&mut self, place: Place, upload: Upload<F>) -> bool {
        let Entry::Vacant(room) = self.uploads.entry((place.database, place.etag)) else {
            return false;
        };
        room.insert(upload);
        true
    }

    pub(super) fn upload(
        &mut self,
        database: DatabaseId,
        etag: Etag,
        now: Instant,
    ) -> Option<Upload<F>> {
        self.expire(now);
        self.uploads.get(&(database, etag)).cloned()
    }

    /// Its import begins, the first time under this request id if there is one. From then on it is kept for
    /// [`RETRIED_MAX`] at most: later the request id may be forgotten, and it would count twice.
    pub(super) fn begin(
        &mut self,
        database: DatabaseId,
        etag: Etag,
        named: Option<RequestId>,
        now: Instant,
    ) -> Option<Upload<F>> {
        self.expire(now);
        let upload = self.uploads.get_mut(&(database, etag))?;
        if upload.begun.is_none() {
            upload.begun = Some(now);
            upload.request = named.unwrap_or(upload.request);
            upload.expires = upload.expires.min(now + RETRIED_MAX);
        }
        Some(upload.clone())
    }

    /// Forgets a file, if it is still the one of this import.
    pub(super) fn remove(&mut self, database: DatabaseId, etag: Etag, request: RequestId) {
        let key = (database, etag);
        if self
            .uploads
            .get(&key)
            .is_some_and(|up| up.request == request)
        {
            self.uploads.remove(&key);
        }
    }

    /// Lets a file be fetched.
    pub(super) fn offer(&mut self, secret: Secret, download: Download<F>) {
        self.downloads.insert(secret, download);
    }

    pub(super) fn download(&mut self, secret: Secret, now: Instant) -> Option<Download<F>> {
        self.expire(now);
        self.downloads.get(&secret).cloned()
    }

    /// Forgets what is too old.
    pub(super) fn expire(&mut self, now: Instant) {
        self.places.retain(|_, place| now < place.expires);
        self.uploads.retain(|_, upload| now < upload.expires);
        self.downloads.retain(|_, download| now < download.expires);
    }
}
