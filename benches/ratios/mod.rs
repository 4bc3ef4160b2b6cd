//! The ratios between measured times, which say more than the times: they are much the same on any machine.

use std::collections::BTreeMap;

/// How many starts have to agree on the shortest time, and how far they may be apart.
const WITNESSES: usize = 3;
const AGREED: f64 = 1.01;

/// The shortest times of each benchmark on each engine, in seconds: what else the machine does only makes them longer.
#[derive(Default)]
pub(crate) struct Ratios {
    /// One of each start, in order.
    times: BTreeMap<(String, String), Vec<f64>>,
    /// In the order of the measurements.
    names: Vec<(String, String)>,
}

impl Ratios {
    pub(crate) fn note(&mut self, group: &str, name: &str, engine: &str, time: f64) {
        let times = self.times.entry((name.into(), engine.into())).or_default();
        let place = times.partition_point(|known| *known < time);
        times.insert(place, time);
        if self.names.iter().all(|(_, known)| known != name) {
            self.names.push((group.into(), name.into()));
        }
    }

    fn times(&self, name: &str, engine: &str) -> Option<&[f64]> {
        self.times.get(&(name.to_string(), engine.to_string())).map(Vec::as_slice)
    }

    fn time(&self, name: &str, engine: &str) -> Option<f64> {
        self.times(name, engine).map(|times| times[0])
    }

    /// Whether several starts found the shortest time, so that another one would hardly find a shorter. So it is if there is none.
    pub(crate) fn is_settled(&self, name: &str, engine: &str) -> bool {
        self.times(name, engine)
            .is_none_or(|times| times.get(WITNESSES - 1).is_some_and(|witness| *witness <= AGREED * times[0]))
    }

    /// Prints what there is: interpreter against translator, and the slower of each pair against the faster.
    pub(crate) fn print(&self, pairs: &[(&str, &str)]) {
        let row = |name: &str, a: Option<f64>, b: Option<f64>| {
            if let (Some(a), Some(b)) = (a, b) {
                println!("{name:<34}{:>11.2} ns{:>11.2} ns{:>9.1}", a * 1e9, b * 1e9, a / b);
            }
        };
        println!("\n{:<34}{:>14}{:>14}{:>9}", "shortest time of one", "interp", "jit", "ratio");
        for (group, name) in &self.names {
            row(&format!("{group}/{name}"), self.time(name, "interp"), self.time(name, "jit"));
        }
        println!("\n{:<34}{:>14}{:>14}{:>9}", "on the translator", "slower", "faster", "ratio");
        for (slow, fast) in pairs {
            row(&format!("{slow} : {fast}"), self.time(slow, "jit"), self.time(fast, "jit"));
        }
        println!("\nmillions of guest instructions a second");
        for (group, name) in &self.names {
            if group == "programs"
                && let (Some(interp), Some(jit)) = (self.time(name, "interp"), self.time(name, "jit"))
            {
                println!("{name:<34}{:>14.0}{:>14.0}", 1e-6 / interp, 1e-6 / jit);
            }
        }
    }
}
