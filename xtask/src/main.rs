//! The front door of the repository. It needs nothing but cargo.

fn main() {
    println!("cargo xtask");
}
