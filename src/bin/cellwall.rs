//! `cellwall`: the administrator's command.

use std::process::ExitCode;

use nix::sys::stat::{Mode, umask};

fn main() -> ExitCode {
    // Modes are as they are written: with root's 077 no site could pass through the directories of its view.
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    cellwall::admin::run()
}
