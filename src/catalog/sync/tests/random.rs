//! The sync against a model of a server, with chance in what is captured, in what is there, and in which answers are lost.

use proptest::prelude::*;

use super::*;
use crate::catalog::properties::{Side, cases, side};

/// Syncs until it comes through, from what the notes know, as the sender does.
async fn until_done(
    model: &Model,
    captured: &Catalog,
    refused: &mut Refused,
    notes: &mut Notes,
) -> Result<Synced, TestCaseError> {
    for _ in 0..20 {
        let known = notes.mapped.clone();
        let options = SyncOptions { refused: refused.clone(), ..all() };
        match run_with(model, captured, &known, &options, notes).await {
            Ok(synced) => {
                refused.clone_from(&synced.refused);
                return Ok(synced);
            }
            Err(SyncError::Sink { outcome, .. }) => prop_assert_eq!(outcome.verdict, Verdict::Unknown),
            Err(SyncError::Journal(error)) => return Err(TestCaseError::fail(error.to_string())),
        }
    }
    Err(TestCaseError::fail("it never came through"))
}

async fn live(
    here: Side<LocalId>,
    there: Side<RemoteId>,
    changes: Side<LocalId>,
    faults: Vec<(&'static str, Fault)>,
    takes_no_updates: bool,
) -> Result<(), TestCaseError> {
    let stored = there.into_iter().map(|(_, id, entity)| RemoteEntity { id: RemoteId(id), entity }).collect();
    let model = Model::new(State { stored, faults, takes_no_updates, ..State::default() });
    let (mut captured, mut notes, mut refused) = (Catalog::new(), Notes::default(), Refused::new());
    for side in [here, changes] {
        captured.extend(side.into_iter().map(|(kind, id, entity)| (at(kind, id), entity)));
        let synced = until_done(&model, &captured, &mut refused, &mut notes).await?;
        prop_assert_eq!(&notes.mapped, &synced.mappings);
        model.forget_log();
        let again = until_done(&model, &captured, &mut refused, &mut notes).await?;
        prop_assert_eq!(model.writes(), Vec::<String>::new());
        prop_assert_eq!(&again.mappings, &synced.mappings);
        model.forget_log();
        let options = SyncOptions { refused: refused.clone(), ..unmapped() };
        let unmapped = run_with(&model, &captured, &again.mappings, &options, &mut notes).await;
        prop_assert_eq!(&unmapped.map_err(|error| TestCaseError::fail(error.to_string()))?.mappings, &again.mappings);
        prop_assert_eq!(model.writes(), Vec::<String>::new());
    }
    Ok(())
}

fn faults() -> impl Strategy<Value = Vec<(&'static str, Fault)>> {
    let of = prop::sample::select(&["SensorType", "RoomType", "Room(", "Deployment", "House", "Location", "Node("][..]);
    let fault = prop::sample::select(&[Fault::DidItLostTheAnswer, Fault::LostTheRequest, Fault::Refuses][..]);
    prop::collection::vec((of, fault), 0..3)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(1_000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_answers_are_lost_a_second_sync_writes_nothing(
        here in side(LocalId, 3),
        there in side(RemoteId, 2),
        changes in side(LocalId, 2),
        faults in faults(),
        takes_no_updates in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(live(here, there, changes, faults, takes_no_updates))?;
    }
}
