//! Nodes on machines of their own, as network namespaces of Linux make them: a bridge between
//! them, and links that go down without a word. Needs root, and says so where it is not.

use std::process::{Command, Stdio};

use super::Node;
use crate::cli::{Served, await_equal, ok};

/// As many machines on one bridge; all gone when it is dropped.
struct Lab {
    name: String,
    size: usize,
}

fn ip(arguments: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(arguments.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Lab {
    /// `None` where the system does not let us.
    fn build(size: usize) -> Option<Self> {
        // Names of links have at most 15 letters.
        let lab = Self { name: format!("c{}", std::process::id()), size };
        let bridge = &lab.name;
        let mut fine =
            ip(&format!("link add {bridge} type bridge")) && ip(&format!("link set {bridge} up"));
        for at in 0..size {
            let (space, end) = (lab.space(at), lab.link(at));
            fine = fine
                && ip(&format!("netns add {space}"))
                && ip(&format!("link add {end} type veth peer name eth0 netns {space}"))
                && ip(&format!("link set {end} master {bridge} up"))
                && ip(&format!("-n {space} addr add 10.77.0.{}/24 dev eth0", at + 1))
                && ip(&format!("-n {space} link set lo up"))
                && ip(&format!("-n {space} link set eth0 up"));
        }
        fine.then_some(lab)
    }

    fn space(&self, at: usize) -> String {
        format!("{}-{at}", self.name)
    }

    fn link(&self, at: usize) -> String {
        format!("{}v{at}", self.name)
    }

    /// Serves a store on a machine; the ticket is of another.
    fn serve(&self, at: usize, tickets: &[String]) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join(format!("n{at}"));
        tickets.iter().for_each(|ticket| drop(ok(&store, &["join", ticket])));
        let listen = format!("/ip4/10.77.0.{}/tcp/4001", at + 1);
        let before = ["ip", "netns", "exec", &self.space(at)].map(str::to_owned);
        let key = store.join("cluster.key");
        let served = Served::start_in(&before, &store, &key, &["--listen", &listen]);
        Node::of(dir, store, served)
    }

    /// Takes these machines off the bridge, or puts them on it.
    fn set(&self, machines: &[usize], state: &str) {
        for at in machines {
            assert!(ip(&format!("link set {} {state}", self.link(*at))));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for at in 0..self.size {
            ip(&format!("netns del {}", self.space(at)));
            ip(&format!("link del {}", self.link(at)));
        }
        ip(&format!("link del {}", self.name));
    }
}

#[test]
fn five_machines_of_which_two_go_silent_write_on_and_agree_once_the_links_are_up() {
    let Some(lab) = Lab::build(5) else {
        eprintln!("SKIPPED: network namespaces need root and the ip command");
        return;
    };
    let mut nodes: Vec<Node> = Vec::new();
    for at in 0..5 {
        let tickets: Vec<String> = nodes.iter().map(Node::ticket).collect();
        nodes.push(lab.serve(at, &tickets));
    }
    let stores: Vec<_> = nodes.iter().map(|node| node.store.clone()).collect();
    let stores: Vec<_> = stores.iter().map(AsRef::as_ref).collect();
    nodes[0].load(50, "together");
    await_equal(&stores, "default");
    // One machine after the other goes silent; those that are left never hear that it did.
    lab.set(&[0, 1], "down");
    for (at, node) in nodes.iter().enumerate() {
        node.load(10, &format!("apart-{at}"));
    }
    await_equal(&stores[2..], "default");
    nodes[3].kill();
    nodes[4].load(10, "while one is dead");
    assert_ne!(nodes[0].root(), nodes[4].root());
    drop(nodes.remove(3));
    lab.set(&[0, 1], "up");
    let stores: Vec<_> = nodes.iter().map(|node| node.store.clone()).collect();
    let stores: Vec<_> = stores.iter().map(AsRef::as_ref).collect();
    await_equal(&stores, "default");
    // What the dead one wrote had reached its half.
    assert_eq!(nodes[0].space("patterns"), 50 + 5 * 10 + 10);
}
