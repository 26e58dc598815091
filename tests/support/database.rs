//! A fresh cogent-house database for each test.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, MySqlPool, mysql::MySqlPoolOptions};

use super::Mariadb;

/// The schemas that are met in the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a column that a real schema has or lacks")]
pub struct Schema {
    /// NodeState has an auto-increment id; without it its key is (time, nodeId, seq_num).
    pub nodestate_id: bool,
    pub seq_num: bool,
    pub rssi: bool,
    pub house_serverid: bool,
    pub reading_location: bool,
    /// SensorType.active.
    pub active_flag: bool,
    /// DATETIME(6) in place of DATETIME.
    pub fraction: bool,
    /// Reading.value is DOUBLE in place of FLOAT.
    pub double_value: bool,
}

impl Schema {
    /// As most gateways have it.
    pub const fn classic() -> Self {
        Self {
            nodestate_id: true,
            seq_num: true,
            rssi: true,
            house_serverid: false,
            reading_location: true,
            active_flag: false,
            fraction: false,
            double_value: false,
        }
    }

    /// The base schema of 2025: NodeState has no id.
    pub const fn newest() -> Self {
        Self { nodestate_id: false, house_serverid: true, active_flag: true, ..Self::classic() }
    }

    /// Its tables.
    pub fn ddl(self) -> String {
        let if_ = |there: bool, text: &'static str| if there { text } else { "" };
        let time = if self.fraction { "DATETIME(6)" } else { "DATETIME" };
        let value = if self.double_value { "DOUBLE" } else { "FLOAT" };
        let (id, key) = if self.nodestate_id {
            (
                "id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,",
                "INDEX (time, nodeId, localtime_)".replace("localtime_", "`localtime`"),
            )
        } else {
            ("", "PRIMARY KEY (time, nodeId, seq_num)".to_owned())
        };
        let seq_num = match (self.seq_num, self.nodestate_id) {
            (true, true) => "seq_num INT,",
            (true, false) => "seq_num INT NOT NULL,",
            (false, _) => "",
        };
        let server = "CREATE TABLE Server (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, hostname VARCHAR(255), baseid INT, rpc INT) ENGINE=InnoDB;";
        format!(
            "CREATE TABLE Deployment (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(255), description VARCHAR(255), startDate DATETIME, endDate DATETIME) ENGINE=InnoDB;
             {server}
             CREATE TABLE House (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, deploymentId INT, address VARCHAR(255), startDate DATETIME, endDate DATETIME{serverid}, FOREIGN KEY (deploymentId) REFERENCES Deployment (id)) ENGINE=InnoDB;
             CREATE TABLE RoomType (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20)) ENGINE=InnoDB;
             CREATE TABLE Room (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, roomTypeId INT, name VARCHAR(20), FOREIGN KEY (roomTypeId) REFERENCES RoomType (id)) ENGINE=InnoDB;
             CREATE TABLE Location (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, houseId INT, roomId INT, UNIQUE (houseId, roomId), FOREIGN KEY (houseId) REFERENCES House (id), FOREIGN KEY (roomId) REFERENCES Room (id)) ENGINE=InnoDB;
             CREATE TABLE NodeType (id INT NOT NULL PRIMARY KEY, name VARCHAR(20), time DATETIME, seq INT, updated_seq INT, period INT, blink TINYINT(1), configured VARCHAR(10)) ENGINE=InnoDB;
             CREATE TABLE Node (id INT NOT NULL PRIMARY KEY, locationId INT, nodeTypeId INT, FOREIGN KEY (locationId) REFERENCES Location (id), FOREIGN KEY (nodeTypeId) REFERENCES NodeType (id)) ENGINE=InnoDB;
             CREATE TABLE SensorType (id INT NOT NULL PRIMARY KEY, name VARCHAR(255), code VARCHAR(50), units VARCHAR(20), c0 FLOAT, c1 FLOAT, c2 FLOAT, c3 FLOAT{active}) ENGINE=InnoDB;
             CREATE TABLE Sensor (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, sensorTypeId INT, nodeId INT, calibrationSlope FLOAT, calibrationOffset FLOAT, FOREIGN KEY (sensorTypeId) REFERENCES SensorType (id), FOREIGN KEY (nodeId) REFERENCES Node (id)) ENGINE=InnoDB;
             CREATE TABLE Reading (time {time} NOT NULL, nodeId INT NOT NULL, type INT NOT NULL{location}, value {value}, PRIMARY KEY (time, nodeId, type), INDEX (nodeId, type), FOREIGN KEY (nodeId) REFERENCES Node (id), FOREIGN KEY (type) REFERENCES SensorType (id)) ENGINE=InnoDB;
             CREATE TABLE NodeState ({id} time {time}{time_null}, nodeId INT{node_null}, parent INT, `localtime` BIGINT, {seq_num} {rssi} {key}, FOREIGN KEY (nodeId) REFERENCES Node (id)) ENGINE=InnoDB;
             CREATE TABLE Pushstatus (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, time DATETIME, `localtime` DATETIME, hostname VARCHAR(25), version VARCHAR(20)) ENGINE=InnoDB;",
            serverid = if_(self.house_serverid, ", serverid INT, FOREIGN KEY (serverid) REFERENCES Server (id)"),
            active = if_(self.active_flag, ", active TINYINT(1) NOT NULL DEFAULT 0"),
            location = if_(self.reading_location, ", locationId INT, FOREIGN KEY (locationId) REFERENCES Location (id)"),
            rssi = if_(self.rssi, "rssi INT,"),
            time_null = if_(!self.nodestate_id, " NOT NULL"),
            node_null = if_(!self.nodestate_id, " NOT NULL"),
        )
    }
}

/// One database of one test, with an administrator to fill it and a user who may only read.
pub struct Database {
    name: String,
    url: String,
    admin: MySqlPool,
    schema: Schema,
}

impl Database {
    /// A new database with that schema and nothing in it.
    pub async fn create(server: &Mariadb, schema: Schema) -> Self {
        let database = Self::bare(server, schema).await;
        database.run(&schema.ddl()).await;
        database
    }

    /// A new database without any table.
    pub async fn bare(server: &Mariadb, schema: Schema) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ph_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let first = MySqlPool::connect_with(server.admin("mysql")).await.unwrap();
        let make = format!(
            "DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name} CHARACTER SET utf8mb3; DROP USER IF EXISTS 'r{name}'@'%'; \
             CREATE USER 'r{name}'@'%' IDENTIFIED BY 'secret'; GRANT SELECT ON {name}.* TO 'r{name}'@'%';"
        );
        sqlx::raw_sql(AssertSqlSafe(make)).execute(&first).await.unwrap();
        first.close().await;
        let admin = MySqlPoolOptions::new().max_connections(4).connect_with(server.admin(&name)).await.unwrap();
        Self { url: server.url(&format!("r{name}"), "secret", &name), name, admin, schema }
    }

    /// For the user who may only read.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The user who may only read, as GRANT and REVOKE name it.
    pub fn reader(&self) -> String {
        format!("'r{}'@'%'", self.name)
    }

    /// May do everything.
    pub fn admin(&self) -> &MySqlPool {
        &self.admin
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn schema(&self) -> Schema {
        self.schema
    }

    /// Its tables were altered to this schema.
    pub fn altered_to(&mut self, schema: Schema) {
        self.schema = schema;
    }

    /// Runs statements as the administrator; how many rows they touched.
    pub async fn run(&self, sql: &str) -> u64 {
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&self.admin).await;
        done.unwrap_or_else(|error| panic!("{error} in {}", &sql[..sql.len().min(400)])).rows_affected()
    }

    /// The one number that a query answers.
    pub async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&self.admin).await.unwrap()
    }
}
