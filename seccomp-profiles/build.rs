//! Turns the files of `data/` into tables, so that a faulty one fails the build.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "src/source.rs"]
mod source;

use source::{Document, Entry, Only, Test, Verb};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=data");
    println!("cargo::rerun-if-changed=src/source.rs");
    let mut paths: Vec<PathBuf> = fs::read_dir("data")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    let documents = paths
        .iter()
        .map(|path| read(path))
        .collect::<Result<Vec<_>, _>>()?;
    let mut out = String::from(
        "#[allow(clippy::unreadable_literal, reason = \"nobody reads this file: the data is what is read\")]\nstatic TABLES: &[Table] = &[\n",
    );
    for document in &documents {
        if let Some(base) = &document.extends
            && !documents
                .iter()
                .any(|other| &other.name == base && other.extends.is_none())
        {
            return Err(
                format!("{}: there is no profile `{base}` to extend", document.name).into(),
            );
        }
        table(&mut out, document)?;
    }
    out.push_str("];\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("tables.rs"), out)?;
    Ok(())
}

fn read(path: &Path) -> Result<Document, Box<dyn Error>> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    let document: Document =
        serde_saphyr::from_str(&text).map_err(|error| format!("{shown}: {error}"))?;
    if path.file_name().and_then(|name| name.to_str()) != Some(&format!("{}.yaml", document.name)) {
        return Err(format!(
            "{shown}: a profile's file bears its name, which is `{}`",
            document.name
        )
        .into());
    }
    for (place, entry) in document.rules.iter().enumerate() {
        if entry.reason.trim().is_empty() || entry.names.is_empty() {
            return Err(format!("{shown}: rule {place} needs a reason and names").into());
        }
        let mut args: Vec<u8> = entry.when.iter().map(|test| test.arg).collect();
        args.sort_unstable();
        args.dedup();
        if args.len() != entry.when.len() {
            return Err(format!(
                "{shown}: rule {place} tests an argument twice; runc would take either for enough"
            )
            .into());
        }
        for test in &entry.when {
            if !sound(test) {
                return Err(format!(
                    "{shown}: rule {place}: a test has an `arg` up to 5 and one of `in` (with or without `mask`), `not_in` and `clear`"
                )
                .into());
            }
        }
    }
    Ok(document)
}

fn sound(test: &Test) -> bool {
    let kinds = usize::from(!test.one_of.is_empty())
        + usize::from(!test.not_in.is_empty())
        + usize::from(test.clear.is_some());
    kinds == 1 && test.arg <= 5 && (test.mask.is_none() || !test.one_of.is_empty())
}

fn table(out: &mut String, document: &Document) -> Result<(), Box<dyn Error>> {
    writeln!(
        out,
        "Table {{ name: {:?}, about: {:?}, extends: {:?}, rules: &[",
        document.name,
        document.about.trim(),
        document.extends
    )?;
    for entry in &document.rules {
        rule(out, entry)?;
    }
    out.push_str("] },\n");
    Ok(())
}

fn rule(out: &mut String, entry: &Entry) -> Result<(), Box<dyn Error>> {
    let action = match entry.action {
        Verb::Allow => "Action::Allow",
        Verb::Enosys => "Action::Errno(ENOSYS)",
        Verb::Einval => "Action::Errno(EINVAL)",
    };
    let only = match entry.arch {
        None => "None",
        Some(Only::X86_64) => "Some(Arch::X86_64)",
        Some(Only::Aarch64) => "Some(Arch::Aarch64)",
    };
    write!(
        out,
        "Line {{ reason: {:?}, action: {action}, only: {only}, names: &{:?}, when: &[",
        entry.reason.trim(),
        entry.names
    )?;
    for test in &entry.when {
        let arg = test.arg;
        let what = match (test.clear, test.mask) {
            (Some(bits), _) => format!("Wanted::Masked(&[({bits:#x}, 0)])"),
            (None, Some(mask)) => {
                let pairs: Vec<(u64, u64)> =
                    test.one_of.iter().map(|value| (mask, *value)).collect();
                format!("Wanted::Masked(&{pairs:?})")
            }
            (None, None) if test.not_in.is_empty() => format!("Wanted::In(&{:?})", test.one_of),
            (None, None) => format!("Wanted::NotIn(&{:?})", test.not_in),
        };
        write!(out, "({arg}, {what}), ")?;
    }
    out.push_str("] },\n");
    Ok(())
}
