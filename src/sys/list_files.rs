//! Reads the files of `--allow-file` and `--deny-file`. What is wrong in them is logged, with file and line, and left out.
//! Layer 5.5.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{self, When};
use crate::proto::rules::{List, MAX_LIST_BYTES, MAX_LIST_RANGES};

/// More lines of a list than this, each asked for every destination, take over 10 µs: that is told.
const MANY_ONE_BY_ONE: usize = 1000;

/// A file that cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    /// As given.
    pub file: String,
    /// Why not.
    pub error: io::Error,
}

/// Reads and compiles all of them, in their order.
///
/// # Errors
/// The first that cannot be read.
pub fn read(files: &[PathBuf], when: When) -> Result<Vec<Arc<List>>, Unreadable> {
    files.iter().map(|path| read_one(path, when)).collect()
}

fn read_one(path: &Path, when: When) -> Result<Arc<List>, Unreadable> {
    let file = path.display().to_string();
    let text = match files::read(path, MAX_LIST_BYTES, when) {
        Ok(text) => text,
        Err(error) => return Err(Unreadable { file, error }),
    };
    let (list, bad) = List::parse(&file, &text);
    for (line, why) in &bad.first {
        log::warn!("{file}:{line}: left out, expected {}", why.expected());
    }
    if bad.count > bad.first.len() {
        log::warn!("{file}: {} lines are left out in all", bad.count);
    }
    if list.out_of_ranges() > 0 {
        let lines = list.out_of_ranges();
        log::warn!(
            "{file}: {lines} lines are asked one by one: only {MAX_LIST_RANGES} ranges of ports are found quickly"
        );
    }
    if list.one_by_one() > MANY_ONE_BY_ONE {
        let lines = list.one_by_one();
        log::warn!(
            "{file}: {lines} lines are asked one by one, which slows down every request: lists are for names and networks"
        );
    }
    log::info!("{file}: {} destinations in {} bytes", list.len(), list.bytes());
    Ok(Arc::new(list))
}
