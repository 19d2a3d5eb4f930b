//! The command line of the bench program, read by hand: a shape, then `--name value` pairs.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// Shown when the program is called wrongly.
pub const HELP: &str = "\
usage: adit-bench origin [--listen ADDR:PORT]
       adit-bench forward --proxy ADDR:PORT --origin HOST:PORT [--listen ADDR:PORT]
       adit-bench charge --pid PID[,PID] -- COMMAND [ARGUMENT...]
       adit-bench rules [--count N] [--write FILE]
       adit-bench connect|roundtrips|down|up|both|idle|slow --proxy ADDR:PORT [OPTIONS]

  --origin HOST:PORT   what CONNECT asks for; without it the proxy is taken as a plain relay
  --field LINE         one more field of the CONNECT, such as credentials
  --conns N            connections or tunnels at once (connect, roundtrips: 64; bulk: 4; idle, slow: 2000)
  --seconds S          length of the measured window (3); so long idle and slow hold their tunnels once all are open
  --warm S             load before the window opens (0.5)
  --count N            this many operations (connect, roundtrips) or MiB (bulk) in all instead of a window
                       of time, or so many names in a list (rules: 200000)
  --write FILE         where the list goes, for a proxy that is to be measured with it (rules)
  --pid PID[,PID]      processes whose CPU time and memory are charged, with their children";

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    Origin,
    Forward,
    Charge,
    Rules,
    Load(Shape),
}

/// The load that is put on a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Connect,
    RoundTrips,
    Down,
    Up,
    Both,
    Idle,
    Slow,
}

impl Task {
    fn of(word: &str) -> Option<Task> {
        match word {
            "origin" => Some(Task::Origin),
            "forward" => Some(Task::Forward),
            "charge" => Some(Task::Charge),
            "rules" => Some(Task::Rules),
            _ => Shape::ALL.into_iter().find(|shape| shape.name() == word).map(Task::Load),
        }
    }
}

impl Shape {
    /// The word on the command line and in the report.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Connect => "connect",
            Shape::RoundTrips => "roundtrips",
            Shape::Down => "down",
            Shape::Up => "up",
            Shape::Both => "both",
            Shape::Idle => "idle",
            Shape::Slow => "slow",
        }
    }

    const ALL: [Shape; 7] =
        [Shape::Connect, Shape::RoundTrips, Shape::Down, Shape::Up, Shape::Both, Shape::Idle, Shape::Slow];

    fn default_conns(self) -> usize {
        match self {
            Shape::Connect | Shape::RoundTrips => 64,
            Shape::Down | Shape::Up | Shape::Both => 4,
            Shape::Idle | Shape::Slow => 2000,
        }
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Args {
    pub task: Task,
    /// Where the origin or the forwarder listens.
    pub listen: SocketAddr,
    /// Where the load goes.
    pub proxy: SocketAddr,
    /// What CONNECT asks for; `None` for a plain relay.
    pub origin: Option<String>,
    /// One more field of the CONNECT.
    pub field: Option<String>,
    pub conns: usize,
    pub window: Duration,
    pub warm: Duration,
    pub count: Option<u64>,
    pub pids: Vec<u32>,
    /// Where `rules` leaves its list.
    pub write: Option<String>,
    /// What `charge` runs: the program and its arguments.
    pub command: Vec<String>,
}

impl Args {
    /// Reads the words behind the program's name.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
        let word = words.next().ok_or("what is to be run?")?;
        let task = Task::of(&word).ok_or(format!("no shape `{word}`"))?;
        let conns = match task {
            Task::Load(shape) => shape.default_conns(),
            Task::Origin | Task::Forward | Task::Charge | Task::Rules => 0,
        };
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut args = Args {
            task,
            listen: anywhere,
            proxy: anywhere,
            origin: None,
            field: None,
            conns,
            window: Duration::from_secs(3),
            warm: Duration::from_millis(500),
            count: None,
            pids: Vec::new(),
            write: None,
            command: Vec::new(),
        };
        while let Some(name) = words.next() {
            if name == "--" {
                args.command = words.collect();
                break;
            }
            let value = words.next().ok_or(format!("{name} needs a value"))?;
            args.set(&name, &value)?;
        }
        match task {
            Task::Forward | Task::Load(_) if args.proxy == anywhere => Err("--proxy is needed".into()),
            Task::Forward if args.origin.is_none() => Err("--origin is needed".into()),
            Task::Charge if args.pids.is_empty() || args.command.is_empty() => {
                Err("--pid and a command behind `--` are needed".into())
            }
            Task::Origin | Task::Forward | Task::Charge | Task::Rules | Task::Load(_) => Ok(args),
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "--listen" => self.listen = read(name, value)?,
            "--proxy" => self.proxy = read(name, value)?,
            "--origin" => self.origin = Some(value.to_string()),
            "--field" => self.field = Some(value.to_string()),
            "--conns" => self.conns = read::<usize>(name, value)?.max(1),
            "--seconds" => self.window = seconds(name, value)?,
            "--warm" => self.warm = seconds(name, value)?,
            "--count" => self.count = Some(read(name, value)?),
            "--write" => self.write = Some(value.to_string()),
            "--pid" => self.pids = value.split(',').map(|pid| read(name, pid)).collect::<Result<_, _>>()?,
            _ => return Err(format!("no option `{name}`")),
        }
        Ok(())
    }
}

fn read<T: FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name}: cannot read `{value}`"))
}

fn seconds(name: &str, value: &str) -> Result<Duration, String> {
    let seconds: f64 = read(name, value)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{name}: cannot read `{value}`"))
}
