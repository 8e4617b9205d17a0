//! The one thing here that is not reading: a snapshot of nobody's, for as long as somebody looks at an image that no container
//! has. containerd tells the folders of an image's layers for a snapshot alone. Nothing of it is mounted, and containerd's own
//! garbage collection takes one that was left behind.
use super::{Client, Error, api};

impl Client {
    /// Makes an active snapshot on top of a committed one.
    ///
    /// # Errors
    /// Any of [`Error`]; `NotFound` where the parent is not unpacked.
    pub fn prepare_snapshot(&self, snapshotter: &str, key: &str, parent: &str) -> Result<(), Error> {
        const CALL: &str = "Snapshots.Prepare";
        let request = self.request(api::snapshots::PrepareSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: Default::default(),
        });
        let mut service = api::snapshots::snapshots_client::SnapshotsClient::new(self.channel.clone());
        self.call(CALL, &format!("snapshot {parent:?}"), service.prepare(request)).map(drop)
    }

    /// Takes it away again. One that is gone is no error.
    ///
    /// # Errors
    /// Any other of [`Error`].
    pub fn remove_snapshot(&self, snapshotter: &str, key: &str) -> Result<(), Error> {
        const CALL: &str = "Snapshots.Remove";
        let request = self.request(api::snapshots::RemoveSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
        });
        let mut service = api::snapshots::snapshots_client::SnapshotsClient::new(self.channel.clone());
        match self.call(CALL, &format!("snapshot {key:?}"), service.remove(request)) {
            Err(Error::NotFound { .. }) | Ok(_) => Ok(()),
            Err(other) => Err(other),
        }
    }
}
