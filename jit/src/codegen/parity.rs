//! The backends are mirror images: the same files, and the same operations in generated code.

use std::collections::BTreeSet;
use std::path::Path;

use super::golden::{Listing, listings};
use crate::{aarch64, x64};

/// Instructions with the format as a parameter are in a file that is named after what the host calls them.
const NAMESAKES: [&str; 2] = ["vex.rs", "neon.rs"];

fn files(folder: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
    std::fs::read_dir(path)
        .expect("the sources are there")
        .map(|entry| entry.expect("they can be listed").file_name().to_string_lossy().into_owned())
        .map(|name| if NAMESAKES.contains(&name.as_str()) { NAMESAKES.concat() } else { name })
        .collect()
}

#[test]
fn backends_have_the_same_files() {
    assert_eq!(files("x64"), files("aarch64"));
    let mut golden = files("aarch64/golden");
    assert!(golden.remove(&format!("{}.txt", aarch64::golden::EXCLUSIVE)));
    assert_eq!(files("x64/golden"), golden);
}

/// The shared code that some code calls and that goes to Rust. All does but the exits, `poll`, and what fills [`softmmu::Near`] entries.
fn calls(lines: &[String]) -> BTreeSet<&str> {
    let names = lines.iter().filter_map(|line| Some(line.split_once('<')?.1.split_once('>')?.0));
    let is_own = |name: &str| name.starts_with("exit") || name.starts_with("near") || name == "poll";
    names.filter(|name| !is_own(name)).collect()
}

#[test]
fn backends_leave_the_same_operations_to_rust() {
    let pairs = listings(&mut x64::golden::host()).into_iter().zip(listings(&mut aarch64::golden::host()));
    let mut cases = 0;
    for (x64, aarch64) in pairs {
        let code = |listing: &Listing| listing.ops.iter().map(|op| op.code).collect::<Vec<_>>();
        assert_eq!(code(&x64), code(&aarch64));
        let usual = [&x64, &aarch64].map(|listing| calls(listing.usual()));
        assert_eq!(usual[0], usual[1], "{:?}", x64.ops);
        // What is rare for floating point differs: NaNs there, underflow here.
        if x64.topic != "float" {
            assert_eq!(calls(&x64.lines), calls(&aarch64.lines), "{:?}", x64.ops);
        }
        cases += 1;
    }
    assert!(cases > 500, "{cases}");
}
