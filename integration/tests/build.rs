//! Generates the clients of the CRI and of a CSI driver from `proto/`.
fn main() -> std::io::Result<()> {
    let files = ["proto/cri.proto", "proto/csi.proto", "proto/pluginregistration.proto"];
    tonic_prost_build::configure().build_server(false).compile_protos(&files, &["proto"])
}
