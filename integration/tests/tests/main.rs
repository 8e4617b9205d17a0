//! The main job, on real containerds.
use std::process::ExitCode;
use stack::node::*;
use stack::containerd::Version;
use std::time::Instant;

fn main() -> ExitCode {
    stack::private::machine(|scratch| {
        let t=Instant::now();
        let node = Node::make(scratch, true)?;
        println!("node {:?}", t.elapsed());
        let mut world = World::start(node, Version::V1_6)?;
        for v in Version::ALL {
            println!("world {:?}", t.elapsed());
            world.runtime = stack::client::RUNC;
            let mut r = world.request("app", &["/bin/cat", "/proc/self/status"])?;
            let e = world.complete(&r);
            println!("{e:?} {:?}", t.elapsed());
            r.id = "x".into();
            println!("{:?}", stack::sign::fetch(&world.node.work, world.node.images.get("app3")?)?);
            println!("{:?}", stack::sign::fetch(&world.node.work, world.node.images.get("app")?)?);
            if v == Version::V1_6 { world = world.switch(Version::V2_1)?; }
        }
        Ok(())
    })
}
