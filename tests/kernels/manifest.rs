//! What every kernel file holds, checked without a GPU: names, parameter sizes, registers, spills.
//!
//! A new kernel adds its line to entries.rs.

use peftk::gpu::Arch;
use peftk::kernels::{self, EntryInfo, Image};

use crate::entries::EXPECTED;
use crate::harness::{Needs, Test};

pub const TESTS: &[Test] = &[
    Test { name: "manifest::files_and_archs", needs: Needs::Kernels, run: files_and_archs },
    Test { name: "manifest::entries_and_parameters", needs: Needs::Kernels, run: entries_and_parameters },
    Test { name: "manifest::registers_and_spills", needs: Needs::Kernels, run: registers_and_spills },
    Test { name: "manifest::hopper_waits_before_memory", needs: Needs::Kernels, run: hopper_waits_before_memory },
];

fn files_and_archs() {
    let mut expected: Vec<&str> = EXPECTED.iter().map(|kernel| kernel.file).collect();
    expected.dedup();
    let files: Vec<&str> = kernels::table().iter().map(|kernel| kernel.name).collect();
    assert_eq!(files, expected, "the kernel files that were embedded");
    for kernel in kernels::table() {
        let archs: Vec<Arch> = kernel.images.iter().map(|image| image.arch).collect();
        // What only Hopper has stands in files of its own.
        let expected = if kernel.name.starts_with("sm90_") { &Arch::ALL[1..] } else { &Arch::ALL[..] };
        assert_eq!(archs, expected, "{}", kernel.name);
        for image in kernel.images {
            let target =
                image.ptx.lines().find_map(|line| line.strip_prefix(".target ")).expect("PTX names its target");
            assert_eq!(target.trim(), image.arch.to_string(), "{}", kernel.name);
        }
    }
    assert!(
        kernels::nvcc_release().is_some_and(|release| release.contains("release 13.0")),
        "{:?}",
        kernels::nvcc_release()
    );
}

fn entries_and_parameters() {
    for (file, image) in images() {
        let mut in_ptx = ptx_entries(image.ptx);
        in_ptx.sort_unstable();
        let mut expected: Vec<(&str, usize)> =
            EXPECTED.iter().filter(|e| e.file == file).map(|e| (e.entry, e.parameter_bytes)).collect();
        expected.sort_unstable();
        assert_eq!(in_ptx, expected, "{file} for {}: entries and the bytes of their parameters", image.arch);
        let mut in_table: Vec<&str> = image.entries.iter().map(|entry| entry.name).collect();
        in_table.sort_unstable();
        assert_eq!(in_table, in_ptx.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "{file} for {}", image.arch);
    }
}

fn registers_and_spills() {
    let mut over = Vec::new();
    for (file, image) in images() {
        for &EntryInfo { name, registers, spill_bytes, shared_bytes, .. } in image.entries {
            println!("    {name} {}: {registers} registers, {shared_bytes} bytes of shared memory", image.arch);
            let expected =
                EXPECTED.iter().find(|e| e.file == file && e.entry == name).expect("entries_and_parameters says more");
            if !(1..=expected.most_registers).contains(&registers) {
                over.push(format!("{name} {}: {registers} registers", image.arch));
            }
            assert_eq!(spill_bytes, 0, "{name} {} spills", image.arch);
            assert!(shared_bytes <= 48 * 1024, "{name} {}: {shared_bytes} bytes of static shared memory", image.arch);
        }
    }
    assert!(over.is_empty(), "more registers than there should be: {over:?}");
}

/// Early launches are right only where every entry waits, in the one place that all its threads pass, before it touches what another launch
/// may have written or read: kernels/common/pdl.cuh. An entry without the wait works, but gives away what they win.
fn hopper_waits_before_memory() {
    for (file, image) in images() {
        let texts: Vec<(&str, &str)> = bodies(image.ptx).collect();
        for entry in image.entries {
            let (_, text) =
                texts.iter().find(|(name, _)| *name == entry.name).expect("entries_and_parameters says more");
            assert_eq!(entry.waits, text.contains("griddepcontrol.wait"), "{file}: {} {}", entry.name, image.arch);
            if image.arch == Arch::Sm80 {
                assert!(!entry.waits, "{file}: {} {} has no wait to offer", entry.name, image.arch);
                continue;
            }
            assert_eq!(
                text.matches("griddepcontrol.wait").count(),
                1,
                "{file}: {} waits once: pdl::start()",
                entry.name
            );
            assert!(
                !text.contains("griddepcontrol.launch_dependents"),
                "{file}: {} lets the next launch in early: its blocks would crowd",
                entry.name
            );
            let (before, after) = text.split_once("griddepcontrol.wait").expect("just counted");
            let early = instructions(before).find(|line| touches_memory(line));
            assert_eq!(early, None, "{file}: {} touches global memory, or returns, before it waits", entry.name);
            let constant = instructions(after).find(|line| line.contains("ld.global.nc"));
            assert_eq!(constant, None, "{file}: {} takes for constant what may change while it waits", entry.name);
        }
    }
}

/// Each entry's name and instructions.
fn bodies(ptx: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    ptx.split(".entry ").skip(1).map(|text| {
        let (name, text) = text.split_once('(').expect("an entry has parameters");
        (name.trim(), text.split("\n}").next().unwrap_or(text))
    })
}

/// Instructions without their predicate.
fn instructions(text: &str) -> impl Iterator<Item = &str> {
    text.split([';', '{', '}', '\n']).map(str::trim).map(|line| match line.split_once(' ') {
        Some((predicate, line)) if predicate.starts_with('@') => line.trim(),
        _ => line,
    })
}

/// Whether an instruction reads or writes memory that is not the block's own, or ends the thread.
fn touches_memory(line: &str) -> bool {
    let word = line.split_whitespace().next().unwrap_or_default();
    let copies = ["cp.", "multimem.", "prefetch.", "prefetchu.", "discard.", "applypriority."];
    let accesses = ["ld.", "ldu.", "st.", "atom.", "red."];
    let own = [".param", ".shared", ".local", ".const"].iter().any(|space| word.contains(space));
    let touches = |list: &[&str]| list.iter().any(|start| word.starts_with(start));
    touches(&copies) || touches(&accesses) && !own || ["ret", "exit"].contains(&word)
}

fn images() -> impl Iterator<Item = (&'static str, &'static Image)> {
    kernels::table().iter().flat_map(|kernel| kernel.images.iter().map(|image| (kernel.name, image)))
}

/// The entries that PTX declares, in order, each with the bytes of its one parameter:
/// `.visible .entry NAME(` and on the next line `.param .align 8 .b8 NAME_param_0[BYTES]`.
fn ptx_entries(ptx: &'static str) -> Vec<(&'static str, usize)> {
    let mut entries = Vec::new();
    for (_, rest) in ptx.match_indices(".visible .entry ").map(|(at, found)| (at, &ptx[at + found.len()..])) {
        let (name, rest) = rest.split_once('(').expect("an entry has parameters");
        let (parameters, _) = rest.split_once(')').expect("and they end");
        assert_eq!(parameters.matches(".param").count(), 1, "{name} takes one struct and nothing else");
        let (_, size) = parameters.split_once('[').expect("a struct is an array of bytes");
        let (size, _) = size.split_once(']').expect("with a size");
        entries.push((name.trim(), size.parse().expect("a number")));
    }
    entries
}
