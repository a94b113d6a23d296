//! FLT-04: there is no memory.

use crate::calls::{Stage, stride};
use crate::harness::{Call, LOG, Launcher, world};
use crate::judge::{End, Left, Ordinary};
use crate::scenes::{SCENES, Scene};
use crate::tracer::{Change, Fault, Made};

#[test]
fn flt_04_when_memory_ends_at_any_call_nothing_is_left_half_done() {
    let (mut cells, mut met) = (0, 0);
    for scene in [&SCENES[0], &SCENES[2], &LARGE] {
        world(Launcher::Cellwall, |world| {
            let stage = Stage::set(scene, world);
            for at in (0..stage.calls.len()).step_by(stride().div_ceil(4)) {
                let Made { name, nth, .. } = &stage.calls[at];
                let (left, seen) = stage.disturbed(Fault { name, nth: *nth, change: Change::Starves });
                judge(&left, &stage.ordinary, &format!("{}: starved from call {at}", scene.name));
                cells += 1;
                met += usize::from(seen.starved > 0);
            }
        });
    }
    println!("faults: starved_from={cells} in_vain={met}");
    // The launcher has memory of its own: few launches ask the kernel for more.
    assert!(met > 0, "none of {cells} launches asked for memory in vain");
}

#[test]
fn flt_04_under_any_small_limit_it_is_a_whole_launch_or_none() {
    let mut ends = Vec::new();
    world(Launcher::Cellwall, |world| {
        let stage = Stage::set(&LARGE, world);
        for resource in ["9", "2"] {
            for kibibytes in (64..4096).step_by(64 * stride().div_ceil(4)) {
                let limit = (kibibytes << 10).to_string();
                std::fs::write(LOG, "").unwrap();
                let call = (LARGE.call)(world).order(&["limit", resource, &limit, &limit]);
                let left = Left::gather(call.unrecorded(), None);
                ends.push(judge(&left, &stage.ordinary, &format!("limit {resource} of {kibibytes} KiB")));
            }
        }
    });
    println!(
        "faults: limits={} refused={}",
        ends.len(),
        ends.iter().filter(|end| **end != End::Dead).count()
    );
    assert!(
        ends.iter().any(|end| *end == End::Refused("E02".to_owned())),
        "the limits are all too small: {ends:?}"
    );
}

/// Whatever it is, nobody is told what only the launcher's makers understand.
fn judge(left: &Left, ordinary: &Ordinary, cell: &str) -> End {
    left.end(Some(ordinary), true).unwrap_or_else(|why| panic!("{cell}: {why}"))
}

/// More variables than the launcher's own memory has room to list, and more than a site may get.
const LARGE: Scene =
    Scene { name: "large environment", call: large, refused: Some("E02"), syslog: false, ..SCENES[0] };

fn large(world: &crate::harness::World) -> Call<'_> {
    (0..12_000).fold((SCENES[0].call)(world), |call, number| call.env(format!("HTTP_X{number}=x")))
}
