//! Which servers there are and who serves a key: asked of a cluster's nodes or of Sentinels, and corrected by redirections.
//!
//! The `redis` crate's own cluster client is not used: while it asks for the slots it holds every call back, so that one
//! frozen node stops all others, and it repeats writes by itself.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::Value;
use tokio::{runtime::Handle, sync::Notify};

use super::{
    discovery::{self, Seed},
    layout::{self, Layout, SlotOwner},
    node::Node,
    reply::{self, Failure},
    request::Request,
};
use crate::{
    clients::redis::{
        Expected,
        address::{Deployment, RedisAddress, join, split},
    },
    shutdown::Shutdown,
    store::StoreError,
};

/// How often the servers are asked although nothing seems to have changed. A cluster's nodes say by themselves what has moved; a
/// master that Sentinels have deposed goes on until they tell it.
const ASK_CLUSTER_EVERY: Duration = Duration::from_secs(5);
const ASK_SENTINELS_EVERY: Duration = Duration::from_secs(1);

const ASK_AGAIN: Duration = Duration::from_millis(200);

/// The shortest time between two rounds, however many redirections there are.
const ASK_PAUSE: Duration = Duration::from_millis(50);

/// Pauses before a request is repeated that the cluster cannot serve at the moment: a slot that is being moved is whole again in
/// milliseconds, a shard without a master is not, and nobody is to wait for that.
const PAUSES: [u64; 4] = [20, 40, 80, 160];

/// Redirections of one request: more are a circle.
const REDIRECTIONS: u32 = 8;

pub(super) struct Topology {
    address: RedisAddress,
    seeds: Vec<Seed>,
    nodes: Mutex<HashMap<String, Weak<Node>>>,
    layout: ArcSwapOption<Layout>,
    problem: ArcSwapOption<String>,
    /// Woken when the first layout, or the reason why there is none, is known.
    known: Notify,
    ask: Notify,
    /// Nodes that are found later are looked at from here.
    runtime: Handle,
    shutdown: Shutdown,
}

impl Topology {
    /// Must be called within a runtime. Waits for no server.
    pub(super) fn open(
        address: RedisAddress,
        shutdown: &Shutdown,
    ) -> Result<Arc<Self>, StoreError> {
        let invalid = |_| StoreError::Unavailable("the address of the store cannot be used".into());
        let expected = match address.deployment {
            Deployment::Single => Expected::Standalone,
            Deployment::Cluster => Expected::ClusterNode,
            Deployment::Sentinel { .. } => Expected::Sentinel,
        };
        let mut seeds = Vec::new();
        for seed in &address.seeds {
            let login = match expected {
                Expected::Sentinel => address.seed_with_login(seed),
                _ => None,
            };
            let with_login = login.map(|login| Node::new(login, expected)).transpose();
            seeds.push(Seed {
                node: Node::new(seed.clone(), expected).map_err(invalid)?,
                with_login: with_login.map_err(invalid)?,
            });
        }
        let topology = Arc::new(Self {
            address,
            seeds,
            nodes: Mutex::default(),
            layout: ArcSwapOption::empty(),
            problem: ArcSwapOption::empty(),
            known: Notify::new(),
            ask: Notify::new(),
            runtime: Handle::current(),
            shutdown: shutdown.clone(),
        });
        topology.start();
        Ok(topology)
    }

    fn start(self: &Arc<Self>) {
        if self.address.deployment != Deployment::Single {
            for seed in &self.seeds {
                self.register(&seed.node);
            }
            let asking = self.clone();
            self.spawn(async move { asking.ask_for_ever().await });
        } else if let Some(seed) = self.seeds.first() {
            self.register(&seed.node);
            let layout = Layout::of_one(seed.node.clone(), None);
            self.layout.store(Some(Arc::new(layout)));
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let _entered = self.runtime.enter();
        self.shutdown.spawn_until_stop(task);
    }

    /// Sends a request to whoever serves the slot, and follows what the cluster says of it. Only what was not done is repeated.
    pub(super) async fn route(
        self: &Arc<Self>,
        slot: u16,
        request: Request<'_>,
        end: Instant,
    ) -> Result<Vec<Value>, Failure> {
        let mut pauses = PAUSES.iter();
        let mut redirected: Option<(Arc<Node>, bool)> = None;
        let mut redirections = 0;
        loop {
            let result = match redirected.take() {
                Some((node, asking)) => exchange(&node, request, asking, end).await,
                None => match self.owner(slot, end).await {
                    Ok(node) => exchange(&node, request, false, end).await,
                    Err(failure) => Err(failure),
                },
            };
            let (to, asking) = match result {
                Err(Failure::Moved(to)) => (to, false),
                Err(Failure::Ask(to)) => (to, true),
                Err(Failure::Again(why)) => {
                    self.ask.notify_one();
                    let pause = pauses.next().map(|ms| Duration::from_millis(*ms));
                    match pause.filter(|pause| Instant::now() + *pause < end) {
                        Some(pause) => tokio::time::sleep(pause).await,
                        None => return Err(Failure::Again(why)),
                    }
                    continue;
                }
                Err(failure) => {
                    if matches!(failure, Failure::Lost(_) | Failure::Refuses(_)) {
                        self.ask.notify_one();
                    }
                    return Err(failure);
                }
                Ok(values) => return Ok(values),
            };
            redirections += 1;
            let node = self.node(&to).filter(|_| redirections <= REDIRECTIONS);
            let Some(node) = node else { return Err(Failure::Moved(to)) };
            if !asking {
                self.moved(slot, &node);
            }
            redirected = Some((node, asking));
        }
    }

    /// As [`Self::route`], for what only reads: doing it twice does no harm, so a connection that broke meanwhile costs the
    /// caller nothing.
    pub(super) async fn read(
        self: &Arc<Self>,
        slot: u16,
        request: Request<'_>,
        end: Instant,
    ) -> Result<Vec<Value>, Failure> {
        match self.route(slot, request, end).await {
            Err(Failure::Lost(_)) => self.route(slot, request, end).await,
            values => values,
        }
    }

    /// The node that serves the slot. Waits for the first layout, no longer than it is being asked for.
    pub(super) async fn owner(&self, slot: u16, end: Instant) -> Result<Arc<Node>, Failure> {
        Ok(self.layout(end).await?.node(slot)?.clone())
    }

    pub(super) async fn layout(&self, end: Instant) -> Result<Arc<Layout>, Failure> {
        loop {
            let known = self.known.notified();
            if let Some(layout) = self.layout.load_full() {
                return Ok(layout);
            }
            if let Some(problem) = self.problem.load_full() {
                return Err(StoreError::Unavailable(problem.to_string()).into());
            }
            if tokio::time::timeout_at(end.into(), known).await.is_err() {
                return Err(StoreError::Unavailable("no answer in time".into()).into());
            }
        }
    }

    /// Whether the node that serves the slot was away, or became its master, within that time.
    pub(super) fn was_away(&self, slot: u16, time: Duration) -> bool {
        let layout = self.layout.load();
        match layout.as_ref().and_then(|layout| layout.owner(slot)) {
            Some(SlotOwner { node, since }) => {
                node.was_away(time) || since.is_some_and(|since| since.elapsed() < time)
            }
            None => true,
        }
    }

    /// The slot of a key; 0 where there are none.
    pub(super) fn slot(&self, key: &str) -> u16 {
        if self.address.deployment == Deployment::Cluster { layout::slot(key) } else { 0 }
    }

    fn moved(&self, slot: u16, node: &Arc<Node>) {
        self.layout.rcu(|layout| {
            let layout = layout.as_ref()?;
            Some(Arc::new(layout.with_moved(slot, node.clone())))
        });
        self.ask.notify_one();
    }

    /// The Redis server at that address (`host:port`).
    fn node(self: &Arc<Self>, address: &str) -> Option<Arc<Node>> {
        let (host, port) = split(address)?;
        let address = join(host, port);
        let expected = match self.address.deployment {
            Deployment::Single => return None,
            Deployment::Cluster => Expected::ClusterNode,
            Deployment::Sentinel { .. } => Expected::Master,
        };
        let known = self.nodes.lock().get(&address).and_then(Weak::upgrade);
        known.or_else(|| {
            let node = Node::new(self.address.node(host, port), expected).ok()?;
            self.register(&node);
            Some(node)
        })
    }

    /// Begins to look at a server, until nobody needs it any more.
    fn register(self: &Arc<Self>, node: &Arc<Node>) {
        let is_alone = self.address.deployment == Deployment::Single;
        let topology = Arc::downgrade(self);
        let changed = move |node: &Node, has_new_health: bool| {
            if is_alone {
                return;
            }
            let address = node.address();
            match node.problem() {
                _ if !has_new_health => {}
                Some(reason) => {
                    tracing::warn!(node = address, reason, "a store node cannot be used")
                }
                None => tracing::info!(node = address, "a store node can be used again"),
            }
            if let Some(topology) = topology.upgrade() {
                topology.ask.notify_one();
            }
        };
        let mut nodes = self.nodes.lock();
        nodes.retain(|_, node| node.strong_count() > 0);
        nodes.insert(node.address().to_owned(), Arc::downgrade(node));
        drop(nodes);
        self.spawn(Node::watch(Arc::downgrade(node), changed));
    }

    async fn ask_for_ever(self: Arc<Self>) {
        let every = match self.address.deployment {
            Deployment::Sentinel { .. } => ASK_SENTINELS_EVERY,
            _ => ASK_CLUSTER_EVERY,
        };
        loop {
            let is_found = match self.find_layout().await {
                Ok(layout) => {
                    self.layout.store(Some(Arc::new(layout)));
                    true
                }
                Err(failure) => {
                    self.problem.store(Some(Arc::new(reply::reason(failure))));
                    false
                }
            };
            self.known.notify_waiters();
            tokio::time::sleep(ASK_PAUSE).await;
            let is_well = is_found && self.is_well();
            let pause = if is_well { every } else { ASK_AGAIN };
            let _ = tokio::time::timeout(pause, self.ask.notified()).await;
        }
    }

    fn is_well(&self) -> bool {
        let layout = self.layout.load();
        layout.as_ref().is_some_and(|layout| {
            let is_well = |node: &Node| node.problem().is_none() && !node.has_lost_replica();
            layout.unserved() == 0 && layout.owners().iter().all(|owner| is_well(&owner.node))
        })
    }

    async fn find_layout(self: &Arc<Self>) -> Result<Layout, Failure> {
        let before = self.layout.load_full();
        match &self.address.deployment {
            Deployment::Sentinel { service } => {
                let address = discovery::find_master(&self.seeds, service).await?;
                let node = self.node(&address).ok_or_else(reply::unexpected)?;
                Ok(match before.as_ref().and_then(|before| before.owners().first()) {
                    Some(owner) if owner.node.address() == node.address() => {
                        Layout::of_one(node, owner.since)
                    }
                    Some(_) => Layout::of_one(node, Some(Instant::now())),
                    None => Layout::of_one(node, None),
                })
            }
            _ => {
                let ranges = discovery::find_ranges(&self.seeds, before.as_deref()).await?;
                let node = |address: &str| self.node(address);
                Ok(Layout::of_ranges(&ranges, before.as_deref(), node))
            }
        }
    }
}

/// One exchange; a redirection of any of its commands is one of all of them.
async fn exchange(
    node: &Node,
    request: Request<'_>,
    asking: bool,
    end: Instant,
) -> Result<Vec<Value>, Failure> {
    let values = node.exchange(request, asking, end).await?;
    match values.iter().filter_map(reply::failed).find(Failure::was_not_done) {
        Some(failure) => Err(failure),
        None => Ok(values),
    }
}
