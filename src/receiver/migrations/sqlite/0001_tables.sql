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

-- Where the gateway tells them, source and localId identify a state, together with its time and node: two gateways that were cloned from
-- one image number different states alike, and a gateway's database that was put back numbers anew. The generation is kept and not
-- asked: a state that is sent again after such a change is the same state. Elsewhere the natural key identifies, and NULL is a value there.
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
CREATE UNIQUE INDEX NodeState_identity ON NodeState (source, localId, ifnull(time, ''), ifnull(nodeId, -1)) WHERE localId IS NOT NULL;
CREATE UNIQUE INDEX NodeState_natural ON NodeState (time, nodeId, ifnull(seq_num, 0), seq_num IS NULL) WHERE localId IS NULL;
CREATE INDEX NodeState_node ON NodeState (nodeId, time);

CREATE TABLE Pushstatus (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time TEXT,
    localtime TEXT,
    hostname TEXT,
    version TEXT
);

-- What follows is the receiver's own: no cogent-house tool knows it.

-- A gateway as it last showed itself. Its token is kept as a hash; one token, one gateway. Collided: when an epoch
-- came back that it had given up, as two machines with one source id do.
CREATE TABLE packhorse_gateway (
    source TEXT PRIMARY KEY NOT NULL,
    token TEXT UNIQUE,
    name TEXT,
    seen TEXT,
    hostname TEXT,
    version TEXT,
    told TEXT,
    depth INTEGER,
    parked INTEGER,
    lag_seconds INTEGER,
    oldest_age_seconds INTEGER,
    collided TEXT
);

-- The highest seq that was ever seen of a stream in an epoch; the epochs of a stream are numbered as they began.
CREATE TABLE packhorse_run (
    source TEXT NOT NULL,
    epoch TEXT NOT NULL,
    stream TEXT NOT NULL,
    highest INTEGER NOT NULL,
    began INTEGER NOT NULL,
    PRIMARY KEY (source, epoch, stream)
);

-- Requests of which every row is stored: an identical repeat is known by its receipt. Written with the rows, in one transaction.
CREATE TABLE packhorse_receipt (
    source TEXT NOT NULL,
    epoch TEXT NOT NULL,
    stream TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    end_seq INTEGER NOT NULL,
    row_count INTEGER NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (source, epoch, stream, first_seq)
);
