//! Packs a program built on this machine into an image with the shared libraries it needs. Used by tests to run the scheduler and
//! the node agent as pods.

use std::path::{Path, PathBuf};

use crate::command::{command, run};
use crate::error::Result;
use crate::image::Image;

/// Resolves names through /etc/hosts and DNS; without this file the C library would ask for services that are not there.
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";
const PASSWD: &str = "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:1000:1000:nonroot:/tmp:/sbin/nologin\n\
                      nobody:x:65534:65534:nobody:/:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnonroot:x:1000:\nnogroup:x:65534:\n";

/// An image that runs `program` at `/usr/local/bin/<its name>`, with its libraries and its ELF interpreter, and the few files a
/// program expects: passwd, group, nsswitch.conf and /tmp. More can be added before it is written.
pub fn program_image(name: impl Into<String>, program: &Path) -> Result<Image> {
    let target = format!(
        "/usr/local/bin/{}",
        program.file_name().unwrap_or_default().to_string_lossy()
    );
    let mut image = Image {
        entrypoint: vec![target.clone()],
        directories: vec![
            ("/tmp".into(), 0o1777),
            ("/root".into(), 0o700),
            ("/run".into(), 0o755),
        ],
        contents: vec![
            ("/etc/nsswitch.conf".into(), NSSWITCH.into(), 0o644),
            ("/etc/passwd".into(), PASSWD.into(), 0o644),
            ("/etc/group".into(), GROUP.into(), 0o644),
        ],
        ..Image::new(name)
    };
    image.add_program(program, &target)?;
    Ok(image)
}

impl Image {
    /// Adds one more dynamically linked program of the host (`nft`, say) with the libraries it needs.
    pub fn add_program(&mut self, program: &Path, target: &str) -> Result<()> {
        for library in libraries(program)? {
            let path = library.display().to_string();
            if !self.files.iter().any(|(_, present, _)| *present == path) {
                self.files.push((library, path, 0o755));
            }
        }
        self.files
            .push((program.to_path_buf(), target.to_owned(), 0o755));
        Ok(())
    }
}

/// What the dynamic loader would load for a program, itself included; nothing for a static one.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    match run(command("ldd", [] as [&str; 0]).arg(program)) {
        Ok(listing) => Ok(parse(&listing)),
        // How `ldd` speaks of a static program, with a failure.
        Err(error) if error.to_string().contains("not a dynamic executable") => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// `name => /path (address)` for a library, `/path (address)` for the loader, a name alone for what the kernel brings.
fn parse(listing: &str) -> Vec<PathBuf> {
    listing
        .lines()
        .filter_map(|line| {
            let line = line.trim();
            let path = line.split_once("=> ").map_or(line, |(_, path)| path);
            let path = path.split(" (").next().unwrap_or(path);
            path.starts_with('/').then(|| PathBuf::from(path))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_and_the_kernels_is_not() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tlibgone.so => not found\n";
        assert_eq!(
            parse(listing),
            [
                Path::new("/lib/x86_64-linux-gnu/libc.so.6"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        assert!(parse("\tstatically linked\n").is_empty());
    }

    #[test]
    fn a_program_of_this_machine_can_be_packed_twice_without_repeating_libraries() {
        let mut image = program_image("pilotlight.local/x:1", Path::new("/bin/ls")).unwrap();
        let before = image.files.len();
        assert!(
            image
                .files
                .iter()
                .any(|(_, target, _)| target.contains("ld-linux"))
        );
        image
            .add_program(Path::new("/bin/ls"), "/bin/again")
            .unwrap();
        assert_eq!(image.files.len(), before + 1);
    }
}
