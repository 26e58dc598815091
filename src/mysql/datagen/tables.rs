//! The tables of the classic cogent-house schema.

use sqlx::{Executor as _, MySqlConnection};

use crate::mysql::fault::Trouble;

const TABLES: [&str; 12] = [
    "CREATE TABLE IF NOT EXISTS Deployment (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(255), description VARCHAR(255), \
     startDate DATETIME, endDate DATETIME) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS House (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, deploymentId INT, address VARCHAR(255), \
     startDate DATETIME, endDate DATETIME, FOREIGN KEY (deploymentId) REFERENCES Deployment (id)) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS RoomType (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20)) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS Room (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, roomTypeId INT, name VARCHAR(20), \
     FOREIGN KEY (roomTypeId) REFERENCES RoomType (id)) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS Location (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, houseId INT, roomId INT, UNIQUE (houseId, roomId), \
     FOREIGN KEY (houseId) REFERENCES House (id), FOREIGN KEY (roomId) REFERENCES Room (id)) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS NodeType (id INT NOT NULL PRIMARY KEY, name VARCHAR(20), time DATETIME, seq INT, updated_seq INT, \
     period INT, blink TINYINT(1), configured VARCHAR(10)) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS Node (id INT NOT NULL PRIMARY KEY, locationId INT, nodeTypeId INT, \
     FOREIGN KEY (locationId) REFERENCES Location (id), FOREIGN KEY (nodeTypeId) REFERENCES NodeType (id)) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS SensorType (id INT NOT NULL PRIMARY KEY, name VARCHAR(255), code VARCHAR(50), units VARCHAR(20), \
     c0 FLOAT, c1 FLOAT, c2 FLOAT, c3 FLOAT) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS Sensor (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, sensorTypeId INT, nodeId INT, \
     calibrationSlope FLOAT, calibrationOffset FLOAT, FOREIGN KEY (sensorTypeId) REFERENCES SensorType (id), \
     FOREIGN KEY (nodeId) REFERENCES Node (id)) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS Reading (time DATETIME NOT NULL, nodeId INT NOT NULL, type INT NOT NULL, locationId INT, value FLOAT, \
     PRIMARY KEY (time, nodeId, type), INDEX (nodeId, type, locationId), FOREIGN KEY (nodeId) REFERENCES Node (id), \
     FOREIGN KEY (type) REFERENCES SensorType (id), FOREIGN KEY (locationId) REFERENCES Location (id)) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS NodeState (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, time DATETIME, nodeId INT, parent INT, \
     `localtime` BIGINT, seq_num INT, rssi INT, INDEX (time, nodeId, `localtime`), FOREIGN KEY (nodeId) REFERENCES Node (id)) \
     ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS Pushstatus (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, time DATETIME, `localtime` DATETIME, \
     hostname VARCHAR(25), version VARCHAR(20)) ENGINE=InnoDB",
];

/// Makes those that are missing.
pub(super) async fn create(connection: &mut MySqlConnection) -> Result<(), Trouble> {
    for table in TABLES {
        connection.execute(table).await?;
    }
    Ok(())
}
