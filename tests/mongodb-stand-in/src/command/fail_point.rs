//! The fail point `failCommand`: which commands are to suffer what, and how often.

use std::time::Duration;

use bson::{RawBsonRef, RawDocument, RawDocumentBuf};

use crate::failure::Failure;
use crate::server::shared::State;
use crate::server::wire::Request;
use crate::value::read::{Read, texts};

#[derive(Debug)]
pub struct FailPoint {
    commands: Vec<String>,
    /// Commands that are spared first.
    skip: u64,
    /// How often it still strikes; `None`: always.
    times: Option<u64>,
    fault: Fault,
}

#[derive(Debug, Clone)]
pub struct Fault {
    pub error: Option<i32>,
    pub labels: Option<Vec<String>>,
    pub close_connection: bool,
    pub block: Option<Duration>,
    pub write_concern_error: Option<RawDocumentBuf>,
    /// Only of the stand-in: the command is executed, and its reply is lost, delayed or replaced.
    pub after_execution: bool,
}

impl FailPoint {
    /// `None`: switched off.
    pub fn parse(command: &RawDocument) -> Result<Option<Self>, Failure> {
        let (mut skip, mut times) = (0, None);
        match command.value("mode") {
            Some(RawBsonRef::String("off")) => return Ok(None),
            Some(RawBsonRef::String("alwaysOn")) => {}
            Some(RawBsonRef::Document(mode)) => {
                times = mode.number("times").map(|times| times.max(0) as u64);
                skip = mode.number("skip").unwrap_or(0).max(0) as u64;
            }
            _ => return Err(Failure::bad_value("a fail point needs a mode: off, alwaysOn, {times} or {skip}")),
        }
        let data = command.document("data").ok_or_else(|| Failure::bad_value("failCommand needs data"))?;
        let fault = Fault {
            error: data.number("errorCode").map(|code| code as i32),
            labels: data.array("errorLabels").map(|labels| texts(labels).map(str::to_owned).collect()),
            close_connection: data.is_set("closeConnection"),
            block: data
                .number("blockTimeMS")
                .filter(|_| data.flag("blockConnection") != Some(false))
                .map(|time| Duration::from_millis(time.max(0) as u64)),
            write_concern_error: data.document("writeConcernError").map(ToOwned::to_owned),
            after_execution: data.is_set("afterExecution"),
        };
        let commands = data.array("failCommands").into_iter().flat_map(texts).map(str::to_owned).collect();
        Ok(Some(Self { commands, skip, times, fault }))
    }

    fn strike(&mut self, command: &str) -> Option<Fault> {
        if !self.commands.iter().any(|name| name == command) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        match &mut self.times {
            Some(0) => return None,
            Some(times) => *times -= 1,
            None => {}
        }
        Some(self.fault.clone())
    }
}

impl State {
    pub fn fault_of(&mut self, request: &Request) -> Option<Fault> {
        self.fail_point.as_mut().and_then(|point| point.strike(&request.name))
    }
}
