//! Prints a profile as it is installed on a node: `cargo run -p pilotlight-seccomp --example render -- python`.

use std::io::{Write, stdout};
use std::process::ExitCode;

use pilotlight_seccomp::{Arch, Process, Profile, agent_profile, built_in};

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let agents = [Process::Api, Process::Host, Process::Network]
        .into_iter()
        .filter_map(agent_profile);
    let all: Vec<&Profile> = built_in().iter().chain(agents).collect();
    let found = all.iter().find(|profile| profile.name() == wanted);
    let (Some(profile), Some(arch)) = (found, Arch::native()) else {
        let names: Vec<&str> = all.iter().map(|profile| profile.name()).collect();
        let _ = writeln!(stdout(), "name one of {}", names.join(", "));
        return ExitCode::FAILURE;
    };
    match stdout().write_all(&profile.render(arch)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
