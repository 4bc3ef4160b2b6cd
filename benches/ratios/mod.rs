//! The ratios between measured times, which say more than the times: they are much the same on any machine.

use std::collections::BTreeMap;

/// The shortest time of each benchmark on each engine, in seconds: what else the machine does only makes it longer.
#[derive(Default)]
pub(crate) struct Ratios {
    times: BTreeMap<(String, String), f64>,
    /// In the order of the measurements.
    names: Vec<(String, String)>,
}

impl Ratios {
    pub(crate) fn note(&mut self, group: &str, name: &str, engine: &str, time: f64) {
        let best = self.times.entry((name.into(), engine.into())).or_insert(f64::INFINITY);
        *best = best.min(time);
        if self.names.iter().all(|(_, known)| known != name) {
            self.names.push((group.into(), name.into()));
        }
    }

    fn time(&self, name: &str, engine: &str) -> Option<f64> {
        self.times.get(&(name.to_string(), engine.to_string())).copied()
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
