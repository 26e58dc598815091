-- The tables of the central server. Times are ISO 8601 text, UTC, with a fraction only where there is one: as text they sort as times.

CREATE TABLE Server (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    hostname TEXT,
    baseid INTEGER REFERENCES Node (id),
    rpc INTEGER
);

CREATE TABLE Deployment (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT,
    description TEXT,
    startDate TEXT,
    endDate TEXT
);

CREATE TABLE House (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    deploymentId INTEGER REFERENCES Deployment (id),
    address TEXT,
    startDate TEXT,
    endDate TEXT,
    serverid INTEGER REFERENCES Server (id)
);
CREATE INDEX House_address ON House (address);

CREATE TABLE RoomType (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT
);

CREATE TABLE Room (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    roomTypeId INTEGER REFERENCES RoomType (id),
    name TEXT
);

CREATE TABLE Location (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    houseId INTEGER REFERENCES House (id),
    roomId INTEGER REFERENCES Room (id),
    UNIQUE (houseId, roomId)
);

CREATE TABLE NodeType (
    id INTEGER PRIMARY KEY NOT NULL,
    name TEXT,
    time TEXT,
    seq INTEGER,
    updated_seq INTEGER,
    period INTEGER,
    blink INTEGER,
    configured TEXT
);

CREATE TABLE Node (
    id INTEGER PRIMARY KEY NOT NULL,
    locationId INTEGER REFERENCES Location (id),
    nodeTypeId INTEGER REFERENCES NodeType (id)
);

-- A number column has no declared type: under REAL, SQLite stores -0.0 as the integer 0 and the sign is lost.
CREATE TABLE SensorType (
    id INTEGER PRIMARY KEY NOT NULL,
    name TEXT,
    code TEXT,
    units TEXT,
    c0,
    c1,
    c2,
    c3
);

CREATE TABLE Sensor (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sensorTypeId INTEGER REFERENCES SensorType (id),
    nodeId INTEGER REFERENCES Node (id),
    calibrationSlope,
    calibrationOffset
);
CREATE INDEX Sensor_node ON Sensor (nodeId, sensorTypeId);

CREATE TABLE Reading (
    time TEXT NOT NULL,
    nodeId INTEGER NOT NULL REFERENCES Node (id),
    type INTEGER NOT NULL REFERENCES SensorType (id),
    locationId INTEGER REFERENCES Location (id),
    value CHECK (typeof(value) IN ('real', 'null')),
    PRIMARY KEY (time, nodeId, type)
) WITHOUT ROWID;
-- For lastnodesync and lastSync: the newest row of a node, of a location.
CREATE INDEX Reading_node ON Reading (nodeId, time);
CREATE INDEX Reading_location ON Reading (locationId, time);

-- source, generation and localId identify a state where the gateway tells them; else its natural key does, and NULL is a value there.
CREATE TABLE NodeState (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time TEXT,
    nodeId INTEGER REFERENCES Node (id),
    parent INTEGER,
    localtime INTEGER,
    seq_num INTEGER,
    rssi INTEGER,
    source TEXT,
    generation INTEGER,
    localId INTEGER
);
CREATE UNIQUE INDEX NodeState_identity ON NodeState (source, generation, localId) WHERE localId IS NOT NULL;
CREATE UNIQUE INDEX NodeState_natural ON NodeState (time, nodeId, ifnull(seq_num, 0), seq_num IS NULL) WHERE localId IS NULL;
CREATE INDEX NodeState_node ON NodeState (nodeId, time);

CREATE TABLE Pushstatus (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time TEXT,
    localtime TEXT,
    hostname TEXT,
    version TEXT
);
