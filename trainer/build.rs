//! Makes the programs find libtorch at run time.
//!
//! `torch-sys` hands over its library folder as `DEP_TCH_LIBTORCH_LIB`, because `Cargo.toml` names it as a direct
//! dependency. Without the run path the loader does not find `libtorch.so`; without `--no-as-needed` the linker drops
//! `libtorch_cuda`, and a CUDA libtorch would say that it has no GPU. The path is of the old kind (`DT_RPATH`), which holds
//! for the libraries that `libtorch.so` itself needs too: a program that calls nothing in `libtorch_cpu.so` names only the
//! former.

fn main() {
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    if std::env::var_os("CARGO_FEATURE_TRAIN").is_none() {
        return;
    }
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
        println!("cargo:rustc-link-arg=-Wl,--disable-new-dtags");
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo:rustc-link-arg=-ltorch");
    }
}
