//! What kubelet asks a CSI driver over the driver's own sockets.
use crate::client::connect;
use anyhow::{Result, ensure};

macro_rules! generated {
    ($name:ident, $package:literal) => {
        #[allow(
            missing_debug_implementations,
            unreachable_pub,
            clippy::all,
            clippy::allow_attributes_without_reason,
            clippy::semicolon_if_nothing_returned,
            unused_qualifications,
            reason = "generated from proto/"
        )]
        mod $name {
            tonic::include_proto!($package);
        }
    };
}
generated!(csi, "csi.v1");
generated!(registration, "pluginregistration");

/// The driver's name, as it registers itself at `socket`, and its version, as it tells at the socket that it names there.
/// `endpoint` turns the driver's path of that socket into the node's.
pub fn register(socket: &str, endpoint: impl FnOnce(&str) -> String) -> Result<(String, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let channel = connect(&runtime, socket)?;
    let mut client = registration::registration_client::RegistrationClient::new(channel);
    let plugin = runtime.block_on(client.get_info(registration::InfoRequest {}))?.into_inner();
    ensure!(plugin.r#type == "CSIPlugin", "{plugin:?}");
    let channel = connect(&runtime, &endpoint(&plugin.endpoint))?;
    let mut client = csi::identity_client::IdentityClient::new(channel);
    let info = runtime.block_on(client.get_plugin_info(csi::GetPluginInfoRequest {}))?.into_inner();
    ensure!(info.name == plugin.name, "{plugin:?} says of itself {info:?}");
    Ok((info.name, info.vendor_version))
}
