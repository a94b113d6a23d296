//! What a launch adds to the start of a program: stock suEXEC and Cellwall, turn by turn.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::say::Pulse;

use super::host::USERS;
use super::sites::TINY_SITE;

/// www-data, the same number on every Debian.
const WEB: u32 = 33;
const ROUNDS: u64 = 100;
pub(crate) const STOCK: &str = "/usr/lib/apache2/suexec-pristine";
pub(crate) const OURS: &str = "/usr/lib/cellwall/cellwall-suexec";

/// Microseconds that a launch adds, in the middle of all rounds.
pub(crate) struct Price {
    pub(crate) stock: u128,
    pub(crate) ours: u128,
    pub(crate) rounds: u64,
}

/// Each round starts the program directly, by stock and by ours, so that all three see the same weather.
pub(crate) fn measure() -> Outcome<Price> {
    let [(_, uid), _] = USERS;
    let ids = uid.to_string();
    let words = [ids.as_str(), ids.as_str(), "tiny.cgi"];
    let (mut stock, mut ours) = (Vec::new(), Vec::new());
    let mut pulse = Pulse::new("measuring");
    for round in 0..ROUNDS {
        let direct = time("./tiny.cgi", &[])?;
        stock.push(time(STOCK, &words)?.saturating_sub(direct).as_micros());
        ours.push(time(OURS, &words)?.saturating_sub(direct).as_micros());
        pulse.beat(Some((round, ROUNDS)));
    }
    pulse.end();
    Ok(Price { stock: median(stock), ours: median(ours), rounds: ROUNDS })
}

fn time(program: &str, words: &[&str]) -> Outcome<Duration> {
    let mut command = Command::new(program);
    command.args(words).current_dir(TINY_SITE).uid(WEB).gid(WEB).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let began = Instant::now();
    let output = command.output().map_err(|why| format!("cannot start {program}: {why}"))?;
    let took = began.elapsed();
    if output.status.success() && !output.stdout.is_empty() {
        return Ok(took);
    }
    Err(format!("{program} {} did not run: {}", words.join(" "), output.status))
}

fn median(mut times: Vec<u128>) -> u128 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
