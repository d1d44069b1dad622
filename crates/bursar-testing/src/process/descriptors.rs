//! The file descriptors of a test and of the server that it starts.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets this process and its children have as many descriptors as a load needs.
pub fn raise_descriptors(needed: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return;
    }
    let raised = Rlimit { current: Some(needed), maximum };
    setrlimit(Resource::Nofile, raised).expect("the system gives as many descriptors as needed");
}
