//! A node of the tests' own: it keeps the contract of the trait and nothing else. What it answers is
//! scripted, what it was asked is kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tidemark_protocol::dump::{DumpOptions, DumpOutput};
use tidemark_protocol::node::{
    Answer, CreateDatabase, DatabaseInfo, DatabaseList, DatabaseStatus, EditDatabase,
    ListDatabases, NodeStatus, Role, Verification,
};
use tidemark_protocol::render::Tally;
use tidemark_protocol::{
    Bookmark, BookmarkKey, ClusterId, DatabaseId, Delivered, Epoch, Execute, Executed, Exported,
    Failure, FailureKind, Node, NodeId, Position, Region, RequestId, Rules, Seq, StateChecksum,
    Term, Why,
};
use tokio::sync::Semaphore;

/// What the node does with the next statements.
#[derive(Clone, Debug)]
pub(crate) enum Turn {
    Answer(Bytes),
    Repeat(Bytes),
    Fail(Failure),
    Forward,
    Panic,
    Hang,
    /// It answers once this is permitted.
    Held(Arc<Semaphore>, Bytes),
}

#[derive(Debug, Default)]
pub(crate) struct Double {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    databases: Vec<DatabaseInfo>,
    turns: VecDeque<Turn>,
    /// For files of SQL.
    scripts: VecDeque<Turn>,
    exports: VecDeque<Turn>,
    exported: Vec<DumpOptions>,
    hands_on: bool,
    executed: Vec<Execute>,
    created: Vec<CreateDatabase>,
    edited: Vec<EditDatabase>,
    deleted: Vec<RequestId>,
    upstream: Option<String>,
    patience: Duration,
    not_ready: bool,
    panics_on_status: bool,
}

pub(crate) const KNOWN: &str = "0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f506";
pub(crate) const KNOWN_NAME: &str = "shop";

impl Double {
    /// A node that leads and has one database.
    pub(crate) fn leading() -> Self {
        let double = Self::default();
        double.with(|state| state.databases.push(info(KNOWN, KNOWN_NAME)));
        double
    }

    /// A node that has the same database and follows the node at `upstream`.
    pub(crate) fn following(upstream: impl Into<String>) -> Self {
        let double = Self::leading();
        double.with(|state| state.upstream = Some(upstream.into()));
        double
    }

    pub(crate) fn script(&self, turns: impl IntoIterator<Item = Turn>) {
        self.with(|state| state.turns.extend(turns));
    }

    /// The same for files of SQL.
    pub(crate) fn script_files(&self, turns: impl IntoIterator<Item = Turn>) {
        self.with(|state| state.scripts.extend(turns));
    }

    /// The same for exports: what is answered is the text.
    pub(crate) fn script_exports(&self, turns: impl IntoIterator<Item = Turn>) {
        self.with(|state| state.exports.extend(turns));
    }

    pub(crate) fn exported(&self) -> Vec<DumpOptions> {
        self.with(|state| state.exported.clone())
    }

    /// It runs nothing itself.
    pub(crate) fn hand_on(&self) {
        self.with(|state| state.hands_on = true);
    }

    pub(crate) fn forget_databases(&self) {
        self.with(|state| state.databases.clear());
    }

    pub(crate) fn add_databases(&self, count: u64) {
        self.with(|state| {
            for n in 0..count {
                let uuid = format!("00000000-0000-7000-8000-{n:012x}");
                state.databases.push(info(&uuid, &format!("tenant-{n:04}")));
            }
        });
    }

    pub(crate) fn follow(&self, upstream: Option<String>) {
        self.with(|state| state.upstream = upstream);
    }

    /// An election goes on, and is worth waiting for.
    pub(crate) fn be_patient(&self, patience: Duration) {
        self.with(|state| state.patience = patience);
    }

    pub(crate) fn not_ready(&self) {
        self.with(|state| state.not_ready = true);
    }

    pub(crate) fn panic_on_status(&self) {
        self.with(|state| state.panics_on_status = true);
    }

    /// The requests it was handed, oldest first.
    pub(crate) fn executed(&self) -> Vec<Execute> {
        self.with(|state| state.executed.clone())
    }

    pub(crate) fn created(&self) -> Vec<CreateDatabase> {
        self.with(|state| state.created.clone())
    }

    pub(crate) fn edited(&self) -> Vec<EditDatabase> {
        self.with(|state| state.edited.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap())
    }
}

pub(crate) fn bookmark() -> Bookmark {
    let key = BookmarkKey::new([7; 16]);
    let position = Position {
        epoch: Epoch(1),
        seq: Seq(41),
        checksum: StateChecksum(0xabc),
    };
    Bookmark::issue(&key, KNOWN.parse().unwrap(), position)
}

fn region() -> Region {
    "WEUR".parse().unwrap()
}

fn info(uuid: &str, name: &str) -> DatabaseInfo {
    DatabaseInfo {
        uuid: uuid.parse().unwrap(),
        name: name.to_owned(),
        created_at: "2026-11-23T10:11:12.131Z".to_owned(),
        primary_location_hint: Some("weur".to_owned()),
        jurisdiction: None,
        replicated: true,
        file_size: 8192,
        num_tables: 2,
        primary_region: region(),
    }
}

fn found<'s>(state: &'s State, name_or_id: &str) -> Option<&'s DatabaseInfo> {
    let id = name_or_id.parse::<DatabaseId>().ok();
    state
        .databases
        .iter()
        .find(|info| Some(info.uuid) == id || info.name == name_or_id)
}

impl Node for Double {
    async fn execute(&self, request: Execute) -> Result<Executed, Failure> {
        let turn = self.with(|state| {
            if state.hands_on {
                return Some(Turn::Forward);
            }
            let turns = match request.rules {
                Rules::Request => &mut state.turns,
                Rules::Script => &mut state.scripts,
            };
            let turn = turns.pop_front();
            state.executed.push(request);
            turn
        });
        let answer = |results, repeated| {
            Ok(Executed::Answer(Answer {
                results,
                bookmark: bookmark(),
                repeated,
                tally: Tally {
                    statements: 1,
                    ..Tally::default()
                },
                delivered: Delivered::default(),
            }))
        };
        match turn.unwrap_or(Turn::Answer(Bytes::from_static(b"[]"))) {
            Turn::Answer(results) => answer(results, false),
            Turn::Repeat(results) => answer(results, true),
            Turn::Fail(failure) => Err(failure),
            Turn::Forward => Ok(Executed::Forward(Why::Contract)),
            Turn::Panic => panic!("scripted"),
            Turn::Hang => std::future::pending().await,
            Turn::Held(until, results) => {
                until.acquire().await.unwrap().forget();
                answer(results, false)
            }
        }
    }

    async fn export(
        &self,
        _: DatabaseId,
        options: DumpOptions,
        _: Duration,
        mut output: DumpOutput,
    ) -> Result<Exported, Failure> {
        let turn = self.with(|state| {
            state.exported.push(options);
            state.exports.pop_front()
        });
        let mut write = |text: &Bytes| {
            let wanted = text
                .chunks(7)
                .all(|piece| output(Bytes::copy_from_slice(piece)));
            match wanted {
                true => Ok(Exported {
                    bookmark: bookmark(),
                }),
                false => Err(Failure::new(FailureKind::Deadline, "nobody wants it")),
            }
        };
        match turn.expect("as many exports as were scripted") {
            Turn::Answer(text) | Turn::Repeat(text) => write(&text),
            Turn::Held(until, text) => {
                until.acquire().await.unwrap().forget();
                write(&text)
            }
            Turn::Fail(failure) => Err(failure),
            Turn::Panic | Turn::Forward => panic!("scripted"),
            Turn::Hang => std::future::pending().await,
        }
    }

    async fn database(&self, name_or_id: &str) -> Result<Option<DatabaseInfo>, Failure> {
        Ok(self.with(|state| found(state, name_or_id).cloned()))
    }

    fn resolve(&self, name_or_id: &str) -> Option<DatabaseId> {
        self.with(|state| found(state, name_or_id).map(|info| info.uuid))
    }

    async fn databases(&self, list: ListDatabases) -> Result<DatabaseList, Failure> {
        let ListDatabases {
            name,
            offset,
            limit,
        } = list;
        let matching: Vec<_> = self.with(|state| {
            let wanted = name.unwrap_or_default();
            state
                .databases
                .iter()
                .filter(|info| info.name.contains(&wanted))
                .cloned()
                .collect()
        });
        let total = matching.len() as u64;
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let databases = matching
            .into_iter()
            .skip(size(offset))
            .take(size(limit))
            .collect();
        Ok(DatabaseList { databases, total })
    }

    async fn create(&self, create: CreateDatabase) -> Result<DatabaseInfo, Failure> {
        self.with(|state| {
            if found(state, &create.name).is_some() {
                let text = format!("Database with name '{}' already exists", create.name);
                return Err(Failure::new(FailureKind::DatabaseExists, text));
            }
            let made = DatabaseInfo {
                primary_location_hint: create.primary_location_hint.clone(),
                jurisdiction: create.jurisdiction.clone(),
                replicated: create.replicated,
                ..info("aaaaaaaa-0000-7000-8000-000000000001", &create.name)
            };
            state.created.push(create);
            state.databases.push(made.clone());
            Ok(made)
        })
    }

    async fn delete(
        &self,
        database: DatabaseId,
        request: Option<RequestId>,
    ) -> Result<(), Failure> {
        self.with(|state| {
            if request.is_some_and(|request| state.deleted.contains(&request)) {
                return Ok(());
            }
            let before = state.databases.len();
            state.databases.retain(|info| info.uuid != database);
            if state.databases.len() == before {
                let text = format!("The database {database} could not be found");
                return Err(Failure::new(FailureKind::NoDatabase, text));
            }
            state.deleted.extend(request);
            Ok(())
        })
    }

    async fn edit(
        &self,
        database: DatabaseId,
        edit: EditDatabase,
    ) -> Result<DatabaseInfo, Failure> {
        self.with(|state| {
            state.edited.push(edit);
            let mut infos = state.databases.iter_mut();
            let info = infos.find(|info| info.uuid == database).unwrap();
            info.replicated = edit.replicated.unwrap_or(info.replicated);
            Ok(info.clone())
        })
    }

    async fn verify(&self, _: DatabaseId) -> Result<Verification, Failure> {
        let position = bookmark().claimed();
        Ok(Verification {
            position,
            computed: position.checksum,
            pages: 2,
            intact: true,
        })
    }

    async fn status(&self) -> NodeStatus {
        assert!(!self.with(|state| state.panics_on_status), "scripted");
        NodeStatus {
            node: NodeId(0xa1),
            role: Role::Primary,
            region: region(),
            leading: true,
            term: Term(3),
            primary_url: None,
            databases: vec![DatabaseStatus {
                uuid: KNOWN.parse().unwrap(),
                name: KNOWN_NAME.to_owned(),
                position: bookmark().claimed(),
                damaged: None,
            }],
            replicas: Vec::new(),
            cell: None,
        }
    }

    fn upstream(&self) -> Option<String> {
        self.with(|state| state.upstream.clone())
    }

    fn cluster(&self) -> Option<ClusterId> {
        Some(ClusterId(0xc1))
    }

    fn patience(&self) -> Duration {
        self.with(|state| state.patience)
    }

    fn ready(&self) -> Result<(), Failure> {
        if self.with(|state| state.not_ready) {
            return Err(Failure::new(FailureKind::Unavailable, "still recovering"));
        }
        Ok(())
    }
}
