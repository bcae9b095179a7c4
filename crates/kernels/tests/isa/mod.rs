//! All other tests of this program again, under each instruction set but the active one.

use std::env;
use std::process::Command;

use lapidary_kernels::isa::{VARIABLE, available, selected};

#[test]
fn under_every_instruction_set() {
    let active = selected().expect("a valid LAPIDARY_ISA");
    if env::var_os(VARIABLE).is_some() {
        // This is such a run, or the user wants one set only.
        return;
    }
    for set in available().into_iter().filter(|set| *set != active) {
        let output = Command::new(env::current_exe().expect("this program"))
            .env(VARIABLE, set.name())
            .output()
            .expect("this program runs again");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "under {set}:\n{text}");
    }
}
