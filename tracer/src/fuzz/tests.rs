//! The kept corpus, and small changes of it.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use super::TARGETS;

/// The time limit of one input on a busy machine. Most inputs take less than a millisecond.
const PATIENCE: Duration = Duration::from_secs(10);

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus")
}

/// The inputs of a target.
fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(corpus().join(target)).expect("a directory for each target");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    let inputs: Vec<_> =
        paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("input"))).collect();
    assert!(!inputs.is_empty(), "{target} has no corpus");
    inputs
}

#[test]
fn each_input_of_the_corpus_is_read_as_promised() {
    for (name, target) in TARGETS {
        for (path, bytes) in inputs(name) {
            let began = Instant::now();
            target(&bytes);
            assert!(began.elapsed() < PATIENCE, "{}", path.display());
        }
    }
}

#[test]
fn every_corpus_has_a_target() {
    let entries = fs::read_dir(corpus()).expect("corpus");
    let found: BTreeSet<String> =
        entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into()).collect();
    assert_eq!(found, TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect());
}

/// One change of an input: bytes are replaced, taken out or put in.
fn changed(mut bytes: Vec<u8>, changes: &[(usize, u8, u8)]) -> Vec<u8> {
    for (at, way, byte) in changes {
        let at = at % (bytes.len() + 1);
        let end = (at + usize::from(way >> 2)).min(bytes.len());
        match way & 3 {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes[at..end].fill(*byte),
            _ => bytes.insert(at, *byte),
        }
    }
    bytes
}

#[test]
fn changed_inputs_are_read_as_promised() {
    for (name, target) in TARGETS {
        let inputs = inputs(name);
        let change = (any::<usize>(), any::<u8>(), any::<u8>());
        let strategy = (0..inputs.len(), proptest::collection::vec(change, 1..6));
        // The same ones each time: searching is the fuzzer's work. What is found is kept in the corpus.
        let config = Config { failure_persistence: None, ..Config::default() };
        let same = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let result = TestRunner::new_with_rng(config, same).run(&strategy, |(input, changes)| {
            let bytes = changed(inputs[input].1.clone(), &changes);
            let began = Instant::now();
            target(&bytes);
            prop_assert!(began.elapsed() < PATIENCE, "{name}: {bytes:?}");
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
