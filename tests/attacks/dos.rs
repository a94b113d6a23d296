//! Load: DOS-01 to DOS-07 of the threat catalogue.

use crate::harness::each_jail;

#[test]
fn dos_04_five_hundred_launches_at_once_all_end() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        std::thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let outcome = world.call(&world.alice, "a.cgi").unrecorded();
                        assert!(outcome.out_text().contains("probe"), "{}", outcome.story());
                    }
                });
            }
        });
    });
}
