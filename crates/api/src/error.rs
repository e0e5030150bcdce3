//! Refusals as a status and one line of JSON.

use crate::wire;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use sync_worker_core::error::Error;
use sync_worker_engine::pipeline::Refusal;

#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    text: String,
}

impl Problem {
    pub fn no_pipeline(name: &str) -> Self {
        Self { status: StatusCode::NOT_FOUND, text: format!("there is no pipeline {name:?}") }
    }

    pub fn starting() -> Self {
        let text = "the worker is looking at its databases and runs no pipeline yet".to_owned();
        Self { status: StatusCode::SERVICE_UNAVAILABLE, text }
    }

    pub fn bad_request(text: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: text.into() }
    }

    pub fn failed(text: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, text: text.into() }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::NoTarget { .. } | Refusal::NoMember { .. } => StatusCode::NOT_FOUND,
            Refusal::NotRunning { .. } => StatusCode::CONFLICT,
            Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, text: refusal.to_string() }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::failed(error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(wire::Problem { error: self.text })).into_response()
    }
}
