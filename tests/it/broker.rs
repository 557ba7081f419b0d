//! A real Apache Kafka broker (KRaft, one node) for the tests: one per test process, on free ports, in a temporary folder.
//!
//! `scripts/kafka-fetch.sh` brings its jars. A test that needs the broker and cannot have it fails: nothing is skipped silently.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

const VERSION: &str = "4.1.1";
pub const USER: &str = "smelt";
pub const PASSWORD: &str = "smelt-secret";

/// A broker process and what is needed to start it again on the same ports.
pub struct Broker {
    child: Option<Child>,
    dir: PathBuf,
    port: u16,
    tls_port: u16,
    // Last: the folder goes after the process.
    _temporary: tempfile::TempDir,
}

/// Addresses of the shared broker, made at first use. It lives as long as the test process.
pub fn shared() -> &'static Addresses {
    static SHARED: OnceLock<Addresses> = OnceLock::new();
    SHARED.get_or_init(|| {
        // The kernel ends the broker with the thread that started it, so that thread must outlive every test.
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let broker = Broker::start();
            let addresses = broker.addresses();
            end_with_process(broker);
            sender.send(addresses).unwrap();
            loop {
                std::thread::park();
            }
        });
        receiver.recv().expect("the shared Kafka broker does not start: see above")
    })
}

/// Where a broker listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// Without encryption.
    pub plain: String,
    /// SASL_SSL with mechanism PLAIN.
    pub tls: String,
    /// Certificate to trust for it.
    pub certificate: PathBuf,
}

impl Broker {
    /// A new broker with an empty log, ready to serve.
    pub fn start() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().to_path_buf();
        let [port, controller, tls_port] = free_ports();
        make_certificate(&dir);
        let (log_dir, path) = (dir.join("log"), dir.display());
        let properties = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{tls_port},CONTROLLER://127.0.0.1:{controller}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL\n\
             inter.broker.listener.name=PLAINTEXT\n\
             log.dirs={}\n\
             auto.create.topics.enable=false\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=1\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=1\n\
             group.initial.rebalance.delay.ms=0\n\
             sasl.enabled.mechanisms=PLAIN\n\
             ssl.keystore.type=PEM\n\
             ssl.keystore.location={path}/keystore.pem\n\
             listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
             required user_{USER}=\"{PASSWORD}\";\n",
            log_dir.display(),
        );
        std::fs::write(dir.join("server.properties"), properties).unwrap();
        let format = java(&dir)
            .args(["kafka.tools.StorageTool", "format", "--standalone", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c"])
            .arg(dir.join("server.properties"))
            .output()
            .unwrap();
        assert!(
            format.status.success(),
            "cannot format Kafka's storage:\n{}{}",
            String::from_utf8_lossy(&format.stdout),
            String::from_utf8_lossy(&format.stderr)
        );
        let mut broker = Broker { child: None, dir, port, tls_port, _temporary: temporary };
        broker.restart();
        broker
    }

    pub fn addresses(&self) -> Addresses {
        Addresses {
            plain: format!("127.0.0.1:{}", self.port),
            tls: format!("127.0.0.1:{}", self.tls_port),
            certificate: self.dir.join("certificate.pem"),
        }
    }

    /// Starts it (again) on its ports, with its log, and waits until it serves.
    pub fn restart(&mut self) {
        self.kill();
        let log = std::fs::File::create(self.dir.join("broker.log")).unwrap();
        let mut command = java(&self.dir);
        command.arg("kafka.Kafka").arg(self.dir.join("server.properties"));
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let started = Instant::now();
        while !self.log().contains("Kafka Server started") {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "Kafka ended at its start:\n{}", self.log());
            assert!(started.elapsed() < Duration::from_secs(120), "Kafka does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(120), "Kafka does not listen:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Where [`Broker::move_to`] can go.
    pub fn free_address() -> String {
        let [port] = free_ports();
        format!("127.0.0.1:{port}")
    }

    /// From its next start on it has another address.
    pub fn move_to(&mut self, address: &str) {
        let path = self.dir.join("server.properties");
        let properties = std::fs::read_to_string(&path).unwrap();
        let before = format!("PLAINTEXT://{}", self.addresses().plain);
        assert!(properties.contains(&before));
        std::fs::write(&path, properties.replace(&before, &format!("PLAINTEXT://{address}"))).unwrap();
        self.port = address.rsplit(':').next().unwrap().parse().unwrap();
    }

    /// SIGTERM: an orderly end.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
            let started = Instant::now();
            while child.try_wait().unwrap().is_none() && started.elapsed() < Duration::from_secs(30) {
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.join("broker.log")).unwrap_or_default()).into_owned()
    }
}

impl Drop for Broker {
    #[allow(clippy::print_stderr)]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("Kafka's log:\n{}", self.log());
        }
        self.kill();
    }
}

/// Statics are never dropped: the shared broker is ended by the C library when the process exits.
fn end_with_process(broker: Broker) {
    static BROKER: Mutex<Option<Broker>> = Mutex::new(None);
    extern "C" fn end() {
        let mut broker: MutexGuard<'_, Option<Broker>> = BROKER.lock().unwrap_or_else(|e| e.into_inner());
        broker.take();
    }
    *BROKER.lock().unwrap() = Some(broker);
    // SAFETY: `end` takes no argument, returns nothing, and does not unwind into C for any state of the mutex.
    #[allow(unsafe_code)]
    unsafe {
        libc::atexit(end);
    }
}

/// Kafka's main classes, small and quick to start; it ends with us also when we are killed.
fn java(dir: &Path) -> Command {
    let jars = jars();
    let mut command = Command::new("java");
    command
        .args(["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
        .arg(format!("{}/*", jars.display()))
        .current_dir(dir)
        .stdin(Stdio::null());
    #[cfg(target_os = "linux")]
    #[allow(unsafe_code)]
    // SAFETY: prctl is async-signal-safe, and the closure touches no memory of ours.
    unsafe {
        use std::os::unix::process::CommandExt;
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command
}

fn jars() -> PathBuf {
    let cache = std::env::var_os("SMELT_TEST_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(&std::env::var_os("HOME").expect("HOME is not set")).join(".cache/smelt-test"));
    let jars = cache.join(format!("kafka-{VERSION}"));
    assert!(
        jars.is_dir(),
        "Apache Kafka {VERSION} is not in {}: run scripts/kafka-fetch.sh (or `make setup`)",
        jars.display()
    );
    jars
}

/// Ports that nobody listens on, and that the system gives to nobody: a broker that is down for a while finds its own free
/// again. One process takes none of them twice.
fn free_ports<const N: usize>() -> [u16; N] {
    const FIRST: u16 = 10_000;
    static NEXT: Mutex<Option<u16>> = Mutex::new(None);
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end = range.split_whitespace().next().and_then(|low| low.parse().ok()).filter(|low| *low > 2 * FIRST);
    let count = end.unwrap_or(32_768) - FIRST;
    let mut next = NEXT.lock().unwrap_or_else(|e| e.into_inner());
    std::array::from_fn(|_| {
        loop {
            // Processes beside this one begin somewhere else, those with the next numbers a thousand ports on.
            let begin = || (std::process::id().wrapping_mul(1009) % u32::from(count)) as u16;
            let tried = next.map_or_else(begin, |next| (next + 1) % count);
            *next = Some(tried);
            if TcpListener::bind(("127.0.0.1", FIRST + tried)).is_ok() {
                return FIRST + tried;
            }
        }
    })
}

/// A self-signed certificate for 127.0.0.1.
fn make_certificate(dir: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "certificate.pem"])
        .current_dir(dir)
        .output()
        .expect("openssl is needed: apt-get install openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    std::fs::write(dir.join("keystore.pem"), read("key.pem") + &read("certificate.pem")).unwrap();
}
