//! A file system that does not answer: FUSE, whose daemon never says a word. Who looks at a file of it waits, and only a
//! signal that ends him ends that: as with a server of NFS that is gone.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Until this is dropped.
pub(crate) struct Hung {
    path: PathBuf,
    device: Option<File>,
}

impl Hung {
    /// What is beneath `path`.
    pub(crate) fn over(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40755,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        mount(Some("hung"), &path, Some("fuse"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Self { path, device: Some(device) }
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        umount2(&self.path, MntFlags::MNT_DETACH).unwrap();
        // Whoever waits still gets an error.
        drop(self.device.take());
    }
}
