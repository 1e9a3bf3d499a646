#![no_main]
use std::sync::Once;

static QUIET: Once = Once::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Panics of the runtime are caught where a model is loaded, and become errors: only one that gets through is a finding, and ends the program
    // all the same. libFuzzer's own hook would end it at the first that is caught.
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    (facelatch_tests::fuzz::target("model").run)(bytes);
});
