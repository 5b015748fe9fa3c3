//! What a hunt reads from a process that seems to run CPython, with memory that is right, or wrong in one way.

use serde_json::{Value, json};

use crate::{
    Test,
    fake_python::Fault,
    hunt::{can_hunt, command, functions, is_stuck},
    lab::{Tracer, in_lab, signal},
    python::python_functions,
    roles::Actor,
    schema,
    sockets::{Kind, fresh_port},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    let of = |fault: Fault| test(format!("python's memory: {fault:?}"), move || memory(fault));
    Fault::ALL.into_iter().map(of).collect()
}

fn memory(fault: Fault) {
    in_lab(|netns| {
        if !can_hunt(netns) {
            return;
        }
        let port = fresh_port();
        let listener = Kind::V4.listen(port);
        let mut actor = Actor::start("fake python", format!("{port} {fault:?}"));
        assert_eq!(actor.hear(), "ready");
        let mut tracer = Tracer::spawn(&mut command(netns, &["--pid", &actor.pid().to_string()]));
        // The memory changes after the connect, and before the hunt reads it.
        signal(tracer.pid(), libc::SIGSTOP);
        actor.go_on();
        drop(listener.accept().expect("accept"));
        let local: u16 = actor.hear().parse().expect("port");
        signal(tracer.pid(), libc::SIGCONT);
        let record = tracer.wait_for(|record| is_stuck(record) && record["local"]["port"] == local);
        schema::check(&record);
        tracer.stop();
        actor.end();
        let found = functions(&record);
        let at = |wanted: &str| {
            let of = |name: &String| name == wanted || name.contains(&format!("::{wanted}"));
            found.iter().position(of).unwrap_or_else(|| panic!("{wanted} is not in {found:#?}"))
        };
        assert!(at("inner_call") < at("outer_call"), "{found:#?}");
        let outer = json!(["Outer.run", "fake.py", 25]);
        let wanted: Vec<Value> = match fault {
            Fault::None | Fault::ManyThreads => vec![json!(["inner", "fake.py", 15]), outer],
            Fault::Deep => {
                let mut functions = vec![outer; 63];
                // One frame belongs to the interpreter's loop.
                functions[0] = json!(["inner", "fake.py", 15]);
                functions
            }
            // The hunt sees only the functions before the endless part.
            Fault::Endless => vec![json!(["inner", "fake.py", 15])],
            _ => Vec::new(),
        };
        assert_eq!(python_functions(&record), wanted, "{record:#}");
        if !wanted.is_empty() {
            assert!(at("inner") < at("inner_call"), "{found:#?}");
        }
        if fault == Fault::None {
            assert!(at("inner_call") < at("Outer.run") && at("Outer.run") < at("outer_call"), "{found:#?}");
        }
    });
}
