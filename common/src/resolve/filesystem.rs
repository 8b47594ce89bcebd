//! Which paths can be written and which must not.

use crate::reasons::{Reason, Refusal};

use super::{MAX_WRITABLE_PATHS, shortened};

/// Where the persistent volume is mounted.
pub const DATA_PATH: &str = "/data";

/// Whether `a` is `b` or lies below it.
pub(super) fn below(a: &str, b: &str) -> bool {
    a.strip_prefix(b)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Writable paths, each a volume, lie beside each other and beside the persistent volume: of two nested ones the order
/// of mounting would decide what is seen.
pub(super) fn apart(writable: &[String], has_volume: bool) -> Result<(), Refusal> {
    let refused = |message: String| Err(Refusal::new(Reason::InvalidFilesystem, message));
    for (number, path) in writable.iter().enumerate() {
        // Of a sorted list: whatever lies below a path comes after it, though not right behind it.
        if let Some(inner) = writable[number + 1..].iter().find(|p| below(p, path)) {
            return refused(format!(
                "writablePaths: {inner} overlaps {path}; leave one of them out"
            ));
        }
        if has_volume && (below(path, DATA_PATH) || below(DATA_PATH, path)) {
            return refused(format!(
                "writablePaths: {path} overlaps {DATA_PATH}, where the persistent volume is mounted; leave it out"
            ));
        }
    }
    Ok(())
}

/// Read-only paths are read-only because the root is; what a writable volume covers would not be.
pub(super) fn stay_read_only(
    read_only: &[String],
    writable: &[String],
    read_only_root: bool,
) -> Result<(), Refusal> {
    let refused = |message: String| Err(Refusal::new(Reason::InvalidFilesystem, message));
    let Some(first) = read_only.first() else {
        return Ok(());
    };
    if !read_only_root {
        return refused(format!(
            "readOnlyPaths: {first} cannot be kept read-only with filesystem.readOnlyRoot: false"
        ));
    }
    for path in read_only {
        if let Some(other) = writable.iter().find(|w| below(path, w) || below(w, path)) {
            return refused(format!(
                "readOnlyPaths: {path} overlaps the writable path {other}"
            ));
        }
    }
    Ok(())
}

/// `paths`, sorted and without repetition; refused where one is not absolute, climbs, or is the root itself.
pub(super) fn paths(mut paths: Vec<String>, field: &str) -> Result<Vec<String>, Refusal> {
    let refused = |message: String| {
        Err(Refusal::new(
            Reason::InvalidFilesystem,
            format!("{field}: {message}"),
        ))
    };
    if paths.len() > MAX_WRITABLE_PATHS {
        return refused(format!(
            "{} paths are too many; at most {MAX_WRITABLE_PATHS} are taken",
            paths.len()
        ));
    }
    for path in &mut paths {
        let trimmed = path.trim_end_matches('/');
        let plain = trimmed.len() < 256
            && trimmed.starts_with('/')
            && trimmed[1..]
                .split('/')
                .all(|part| !matches!(part, "" | "." | ".."))
            && !trimmed.contains([':', '\0', '\n']);
        if !plain {
            return refused(format!(
                "\"{}\" is not a plain absolute path below the root",
                shortened(path)
            ));
        }
        if ["/proc", "/sys", "/dev"]
            .iter()
            .any(|own| trimmed == *own || trimmed.starts_with(&format!("{own}/")))
        {
            return refused(format!("\"{}\" belongs to the kernel", shortened(path)));
        }
        *path = trimmed.to_owned();
    }
    paths.sort();
    paths.dedup();
    Ok(paths)
}
