//! The contract, message by message and byte by byte.

use super::*;

fn downs() -> Vec<Down> {
    let (site, worker, token) = (Site(7), Worker(u32::MAX), Token(u64::MAX));
    let mut all = vec![
        Down::Welcome { version: VERSION },
        Down::Site { site, generation: 3 },
        Down::SiteGone { site },
        Down::Pause { site },
        Down::StandIn { site },
        Down::Resume { site },
        Down::Worker { site, worker, generation: 3, connections: 4 },
        Down::Errors { site, worker },
        Down::Drain { site, worker },
        Down::Started { token, site },
        Down::Usage { site, processes: 9, memory: 1 << 40, cpu_us: u64::MAX, behind: true },
        Down::Usage { site, processes: 0, memory: 0, cpu_us: 0, behind: false },
        Down::Spent { site, worker, cpu_us: u64::MAX },
        Down::RunSpent { token, site, cpu_us: u64::MAX },
        Down::Ask { number: 1 },
        Down::Quit { within_ms: 30_000 },
    ];
    for how in Ended::ALL.iter().copied() {
        all.push(Down::WorkerGone { site, worker, how, code: 255 });
        all.push(Down::StartFailed { site, how, retry_after_ms: 100 });
        all.push(Down::RunEnded { token, site, how, code: 9 });
    }
    all.extend(Busy::ALL.iter().map(|why| Down::NotStarted { token, site, why: *why }));
    all.extend(Sink::ALL.iter().map(|sink| Down::Lines { site, sink: *sink }));
    all
}

fn ups() -> Vec<Up> {
    let (site, worker, token) = (Site(7), Worker(1), Token(2));
    let mut all = vec![
        Up::Hello { version: VERSION },
        Up::Taken { site, generation: 1 },
        Up::Want { site, count: 8 },
        Up::Ready { site, worker },
        Up::Run { site, token },
        Up::Slow { site, worker },
        Up::SlowRun { site, token },
        Up::Beat { number: u64::MAX },
        Up::Heir { site, worker },
        Up::Renew { site, worker, child: 7 },
        Up::Disturbs { site },
    ];
    for why in Why::ALL.iter().copied() {
        all.push(Up::Retire { site, worker, why });
        all.push(Up::Kill { site, worker, why });
        all.push(Up::EndRun { site, token, why });
    }
    all
}

#[test]
fn every_message_comes_back_as_it_was_sent() {
    for message in downs() {
        let frame = message.encode();
        assert_eq!(Down::decode(&frame, message.descriptors()), Ok(message));
        assert_eq!(Up::decode(&frame, message.descriptors()), Err(Nonsense), "the other direction");
    }
    for message in ups() {
        let frame = message.encode();
        assert_eq!(Up::decode(&frame, message.descriptors()), Ok(message));
        assert_eq!(Down::decode(&frame, message.descriptors()), Err(Nonsense), "the other direction");
    }
}

/// As the contract says them, message by message: what is sent with one and taken with another is lost.
#[test]
fn each_message_has_the_descriptors_that_its_description_names() {
    for message in downs() {
        let told = match message {
            // Log and status; listening socket and settings.
            Down::Welcome { .. } | Down::Site { .. } => 2,
            // A file, or a standard error output.
            Down::Lines { .. } | Down::Worker { .. } | Down::Errors { .. } => 1,
            // Three standard streams.
            Down::Started { .. } => 3,
            _ => 0,
        };
        assert_eq!(message.descriptors(), told, "{message:?}");
    }
    for message in ups() {
        // An environment.
        let told = usize::from(matches!(message, Up::Run { .. }));
        assert_eq!(message.descriptors(), told, "{message:?}");
    }
}

#[test]
fn one_descriptor_more_or_less_is_nonsense() {
    for message in downs() {
        for count in (0..=4).filter(|count| *count != message.descriptors()) {
            assert_eq!(Down::decode(&message.encode(), count), Err(Nonsense), "{message:?}");
        }
    }
    for message in ups() {
        for count in (0..=4).filter(|count| *count != message.descriptors()) {
            assert_eq!(Up::decode(&message.encode(), count), Err(Nonsense), "{message:?}");
        }
    }
}

/// Every byte of every message, set to every value: what is taken encodes to the same bytes again.
#[test]
fn no_two_frames_are_the_same_message() {
    for message in ups() {
        for place in 0..FRAME {
            for value in 0..=255 {
                let mut frame = message.encode();
                frame[place] = value;
                if let Ok(taken) = Up::decode(&frame, message.descriptors()) {
                    assert_eq!(taken.encode(), frame, "{message:?} at {place}");
                }
            }
        }
    }
    for length in [0, 1, FRAME - 1, FRAME + 1] {
        assert_eq!(Up::decode(&vec![0; length], 0), Err(Nonsense));
    }
}

/// The broker connects by it, and the supervisor makes it.
#[test]
fn a_socket_is_called_by_site_and_worker() {
    assert_eq!(socket_name(Site(7), Worker(12)), "7.12");
}
