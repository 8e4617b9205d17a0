//! Generates the CRI client from `proto/cri.proto`.
fn main() -> std::io::Result<()> {
    tonic_prost_build::configure().build_server(false).compile_protos(&["proto/cri.proto"], &["proto"])
}
