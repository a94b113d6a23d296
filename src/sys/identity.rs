//! Who we are: root as a value, and the way out of it.

use std::ffi::{c_long, c_ulong};

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, geteuid, getgroups, getresgid, getresuid};

/// The right to act as root. There is at most one, and it cannot be copied.
#[derive(Debug)]
pub struct Root(());

/// A group, a user, and what came of the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotDropped {
    /// setgroups or setresgid failed.
    Groups(Errno),
    /// setresuid failed.
    User(Errno),
    /// Every call went well, and something of root is left; what.
    Left(&'static str),
}

impl Root {
    /// Becomes root wholly: real, effective and saved. That ends the caller's right to signal this process. None:
    /// the process was started without root's rights.
    ///
    /// # Errors
    /// Of setresgid and setresuid, in a container that took those rights.
    pub fn claim() -> Result<Option<Self>, Errno> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        set_all(libc::SYS_setresgid, 0)?;
        set_all(libc::SYS_setresuid, 0)?;
        Ok(Some(Self(())))
    }

    /// Groups, gid, uid, in this order (CVE-2019-15901); reads everything back; then asks for root again, which must
    /// fail (the Linux capability bug of 2000).
    ///
    /// # Errors
    /// [`NotDropped`].
    pub fn become_user(self, uid: u32, gid: u32, groups: &[u32]) -> Result<(), NotDropped> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let mut want: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
        set_groups(groups).map_err(NotDropped::Groups)?;
        set_all(libc::SYS_setresgid, gid.as_raw()).map_err(NotDropped::Groups)?;
        set_all(libc::SYS_setresuid, uid.as_raw()).map_err(NotDropped::User)?;
        let unknown = |_| NotDropped::Left("the identity cannot be read back");
        let (uids, gids) = (getresuid().map_err(unknown)?, getresgid().map_err(unknown)?);
        let mut have = getgroups().map_err(unknown)?;
        for list in [&mut have, &mut want] {
            list.sort_unstable_by_key(|gid| gid.as_raw());
            list.dedup();
        }
        if [uids.real, uids.effective, uids.saved] != [uid; 3]
            || [gids.real, gids.effective, gids.saved] != [gid; 3]
        {
            return Err(NotDropped::Left("the identity is not the one that was set"));
        }
        if have != want {
            return Err(NotDropped::Left("supplementary groups are not those that were set"));
        }
        if set_all(libc::SYS_setresuid, 0).is_ok() {
            return Err(NotDropped::Left("root can be had again"));
        }
        if has_capabilities().map_err(unknown)? {
            return Err(NotDropped::Left("capabilities are left"));
        }
        Ok(())
    }

    /// Has the site's supplementary groups, and is root still: what is opened for the site is opened with its rights.
    ///
    /// # Errors
    /// EPERM without `CAP_SETGID`.
    pub fn with_groups(&self, groups: &[u32]) -> Result<(), Errno> {
        set_groups(groups)
    }

    /// Empties the bounding, ambient and inheritable sets. Before [`Root::become_user`]: afterwards `CAP_SETPCAP` is
    /// gone. By number until the kernel knows no more, so that capabilities of future kernels go as well.
    ///
    /// # Errors
    /// EPERM without `CAP_SETPCAP`.
    pub fn empty_capabilities(&self) -> Result<(), Errno> {
        for capability in 0..=63 {
            if !drop_bounding(capability)? {
                break;
            }
        }
        let refused = |_| Errno::EPERM;
        caps::clear(None, caps::CapSet::Ambient).map_err(refused)?;
        caps::clear(None, caps::CapSet::Inheritable).map_err(refused)
    }
}

/// Real, effective and saved. The C library's function tells its other threads first; this program has none.
fn set_all(call: c_long, id: u32) -> Result<(), Errno> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::syscall(call, id, id, id) }).map(drop)
}

/// Directly, for the same reason: the C library blocks all signals meanwhile, and does not look whether they come back.
fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: the length is that of the list, which outlives the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Is any bit set in the effective, permitted or inheritable set (capget(2), version 3)?
fn has_capabilities() -> Result<bool, Errno> {
    let header: [u32; 2] = [0x2008_0522, 0];
    let mut sets = [0_u32; 6];
    // SAFETY: the header is as version 3 has it, pid 0 is this process, and there is room for two triples.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) })?;
    Ok(sets.iter().any(|set| *set != 0))
}

/// `false`: the kernel knows no such number, and says so twice: a right that merely could not be taken must not stay.
fn drop_bounding(capability: c_ulong) -> Result<bool, Errno> {
    // SAFETY: plain numbers.
    match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
        Ok(_) => Ok(true),
        // SAFETY: plain numbers.
        Err(Errno::EINVAL) if unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) } < 0 => {
            Ok(false)
        }
        Err(errno) => Err(errno),
    }
}
