//! For the admin port: what the workers and the discovery have shown, without asking them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use dataplane::{NodeFigures, View};
use topology::{NodeAddr, NodeId};

use super::{Shared, Worked};
use crate::{events::Events, heat::HeatBoard, slow::Slow};

/// Reads what is shared. Takes no lock for longer than a pointer is copied.
#[derive(Clone, Debug)]
pub struct Observer(pub(super) Arc<Shared>);

impl Observer {
    /// The cluster as it was found last.
    pub(crate) fn view(&self) -> Arc<View> {
        self.0.view()
    }

    /// Clients of all workers.
    pub(crate) fn clients(&self) -> usize {
        self.0.clients()
    }

    /// What changed in the cluster.
    pub(crate) fn events(&self) -> &Events {
        &self.0.events
    }

    /// Commands that took long.
    pub(crate) fn slow(&self) -> Vec<Slow> {
        self.0.slow.all()
    }

    /// Where the load is.
    pub(crate) fn heat(&self) -> &HeatBoard {
        &self.0.heat
    }

    /// How far each replica is behind, where that is known.
    pub(crate) fn lags(&self) -> Arc<HashMap<NodeId, Duration>> {
        self.0.lags()
    }

    /// What nodes say that commands took them, where that is known.
    pub(crate) fn worked(&self) -> Arc<HashMap<NodeAddr, Worked>> {
        self.0.worked()
    }

    /// What each worker showed last of its nodes.
    pub(crate) fn figures(&self) -> Vec<Arc<[NodeFigures]>> {
        self.0.shown()
    }

    /// Somebody looks: nodes are asked for what only they know, for a while.
    pub(crate) fn look(&self) {
        self.0.want_readers();
    }
}
