//! The catalog as the source reads it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use packhorse::{
    domain::{Entity, EntityKind, House, LocalId, LocalRef, Sensor, SensorType},
    mysql::{MysqlSource, Options},
    ports::Source,
};
use support::{Database, Mariadb, Schema, greenhouse::load_catalog};

#[tokio::test]
async fn all_nine_tables_are_read_with_their_references() {
    for schema in [Schema::classic(), Schema::newest()] {
        let db = Database::create(Mariadb::shared(), schema).await;
        load_catalog(&db).await;
        db.run("INSERT INTO NodeType (id, name, blink, configured) VALUES (10, 'Clamp', 1, '31,4'), (0, NULL, NULL, NULL)").await;
        let catalog = MysqlSource::new(Options::new(db.url())).unwrap().catalog().await.unwrap();
        let of = |kind| catalog.keys().filter(|key| key.kind == kind).count();
        let counts: Vec<_> = EntityKind::ALL.into_iter().map(of).collect();
        assert_eq!(counts, [6, 2, 3, 2, 3, 6, 2, 6, 36], "{schema:?}");
        for entity in catalog.values() {
            assert!(entity.refers().iter().all(|to| catalog.contains_key(to)), "{entity:?}");
        }
        let house = &catalog[&LocalRef { kind: EntityKind::House, id: LocalId(207) }];
        let start = Some("2015-08-01".parse().unwrap());
        let address = Some("1 Greenhouse Row".to_owned());
        assert_eq!(*house, Entity::House(House { deployment: Some(LocalId(41)), address, start, end: None }));
    }
}

#[tokio::test]
async fn calibrations_are_exact_floats() {
    let db = Database::create(Mariadb::shared(), Schema::classic()).await;
    load_catalog(&db).await;
    let catalog = MysqlSource::new(Options::new(db.url())).unwrap().catalog().await.unwrap();
    let Entity::SensorType(SensorType { coefficients, .. }) =
        &catalog[&LocalRef { kind: EntityKind::SensorType, id: LocalId(2) }]
    else {
        panic!("a sensor type")
    };
    assert_eq!(*coefficients, [Some(-2.0468_f32), Some(0.0367), Some(-0.000_001_595_5), Some(0.0)]);
    let Entity::Sensor(Sensor { calibration_slope, .. }) = &catalog[&LocalRef { kind: EntityKind::Sensor, id: LocalId(7102) }]
    else {
        panic!("a sensor")
    };
    assert_eq!(*calibration_slope, Some(1.0125_f32));
}

#[tokio::test]
async fn what_old_schemas_lack_is_null_and_missing_tables_are_empty() {
    let db = Database::create(Mariadb::shared(), Schema::classic()).await;
    load_catalog(&db).await;
    db.run("ALTER TABLE House DROP startDate, DROP endDate; ALTER TABLE Deployment DROP description, DROP endDate; ALTER TABLE SensorType DROP c0, DROP c1, DROP c2, DROP c3; DROP TABLE Sensor").await;
    db.run("ALTER TABLE Node DROP FOREIGN KEY Node_ibfk_2; DROP TABLE NodeType").await;
    let catalog = MysqlSource::new(Options::new(db.url())).unwrap().catalog().await.unwrap();
    assert!(!catalog.keys().any(|key| matches!(key.kind, EntityKind::Sensor | EntityKind::NodeType)));
    let address = Some("2 Greenhouse Row".to_owned());
    let house = Entity::House(House { deployment: Some(LocalId(41)), address, start: None, end: None });
    assert_eq!(catalog[&LocalRef { kind: EntityKind::House, id: LocalId(203) }], house);
}

#[tokio::test]
async fn names_of_any_character_set_and_null_names_are_read() {
    let db = Database::create(Mariadb::shared(), Schema::classic()).await;
    db.run("ALTER TABLE House CONVERT TO CHARACTER SET latin1; ALTER TABLE Deployment CONVERT TO CHARACTER SET utf8mb4").await;
    db.run("INSERT INTO House (id, address) VALUES (1, 'Großer Weg 3, Málaga'), (2, NULL), (3, ''); INSERT INTO Deployment (id, name) VALUES (1, '測試 🏠'); INSERT INTO Room (id, name) VALUES (1, 'Küche')").await;
    let catalog = MysqlSource::new(Options::new(db.url())).unwrap().catalog().await.unwrap();
    let name = |kind, id| match &catalog[&LocalRef { kind, id: LocalId(id) }] {
        Entity::House(house) => house.address.clone(),
        Entity::Deployment(deployment) => deployment.name.clone(),
        Entity::Room(room) => room.name.clone(),
        _ => None,
    };
    assert_eq!(name(EntityKind::House, 1).as_deref(), Some("Großer Weg 3, Málaga"));
    assert_eq!(name(EntityKind::House, 2), None);
    assert_eq!(name(EntityKind::House, 3).as_deref(), Some(""));
    assert_eq!(name(EntityKind::Deployment, 1).as_deref(), Some("測試 🏠"));
    assert_eq!(name(EntityKind::Room, 1).as_deref(), Some("Küche"));
}
