#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (facelatch_tests::fuzz::target("sealed").run)(bytes));
