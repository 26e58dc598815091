-- The tables of the central server, shaped as cogent-house tools know them. Times are UTC, with microseconds. Texts compare exactly.
-- Ids have 32 bits as everywhere in the field; what gateways merely report has 64, so that nothing of theirs is ever out of range.

CREATE TABLE `Server` (
    `id` INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `hostname` VARCHAR(255),
    `baseid` INT,
    `rpc` INT
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE `Deployment` (
    `id` INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `name` VARCHAR(1000),
    `description` VARCHAR(1000),
    `startDate` DATETIME(6),
    `endDate` DATETIME(6)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE `House` (
    `id` INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `deploymentId` INT,
    `address` VARCHAR(1000),
    `startDate` DATETIME(6),
    `endDate` DATETIME(6),
    `serverid` INT,
    INDEX `House_address` (`address`(190)),
    FOREIGN KEY (`deploymentId`) REFERENCES `Deployment` (`id`),
    FOREIGN KEY (`serverid`) REFERENCES `Server` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE `RoomType` (
    `id` INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `name` VARCHAR(1000)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE `Room` (
    `id` INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `roomTypeId` INT,
    `name` VARCHAR(1000),
    FOREIGN KEY (`roomTypeId`) REFERENCES `RoomType` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE `Location` (
    `id` INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `houseId` INT,
    `roomId` INT,
    UNIQUE (`houseId`, `roomId`),
    FOREIGN KEY (`houseId`) REFERENCES `House` (`id`),
    FOREIGN KEY (`roomId`) REFERENCES `Room` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE `NodeType` (
    `id` INT NOT NULL PRIMARY KEY,
    `name` VARCHAR(1000),
    `time` DATETIME(6),
    `seq` BIGINT,
    `updated_seq` BIGINT,
    `period` BIGINT,
    `blink` TINYINT(1),
    `configured` VARCHAR(1000)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE `Node` (
    `id` INT NOT NULL PRIMARY KEY,
    `locationId` INT,
    `nodeTypeId` INT,
    FOREIGN KEY (`locationId`) REFERENCES `Location` (`id`),
    FOREIGN KEY (`nodeTypeId`) REFERENCES `NodeType` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- DOUBLE where the field has FLOAT: a FLOAT arrives in its shortest decimal form, and is kept as that.
CREATE TABLE `SensorType` (
    `id` INT NOT NULL PRIMARY KEY,
    `name` VARCHAR(1000),
    `code` VARCHAR(1000),
    `units` VARCHAR(1000),
    `c0` DOUBLE,
    `c1` DOUBLE,
    `c2` DOUBLE,
    `c3` DOUBLE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE `Sensor` (
    `id` INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `sensorTypeId` INT,
    `nodeId` INT,
    `calibrationSlope` DOUBLE,
    `calibrationOffset` DOUBLE,
    INDEX `Sensor_node` (`nodeId`, `sensorTypeId`),
    FOREIGN KEY (`sensorTypeId`) REFERENCES `SensorType` (`id`),
    FOREIGN KEY (`nodeId`) REFERENCES `Node` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE `Reading` (
    `time` DATETIME(6) NOT NULL,
    `nodeId` INT NOT NULL,
    `type` INT NOT NULL,
    `locationId` INT,
    `value` DOUBLE,
    PRIMARY KEY (`time`, `nodeId`, `type`),
    INDEX `Reading_node` (`nodeId`, `time`),
    INDEX `Reading_location` (`locationId`, `time`),
    INDEX `Reading_type` (`type`),
    FOREIGN KEY (`nodeId`) REFERENCES `Node` (`id`),
    FOREIGN KEY (`type`) REFERENCES `SensorType` (`id`),
    FOREIGN KEY (`locationId`) REFERENCES `Location` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Where the gateway tells them, source and localId identify a state, together with its time and node; elsewhere the natural key does, and
-- NULL is a value there. The columns that begin with k_ make both keys unique, each where it counts.
CREATE TABLE `NodeState` (
    `id` BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `time` DATETIME(6),
    `nodeId` INT,
    `parent` BIGINT,
    `localtime` BIGINT,
    `seq_num` BIGINT,
    `rssi` BIGINT,
    `source` CHAR(32) CHARACTER SET ascii COLLATE ascii_bin,
    `generation` BIGINT,
    `localId` BIGINT,
    `k_no_time` TINYINT AS (`time` IS NULL) VIRTUAL,
    `k_time` DATETIME(6) AS (IFNULL(`time`, '1000-01-01 00:00:00')) VIRTUAL,
    `k_node` INT AS (IFNULL(`nodeId`, -1)) VIRTUAL,
    `k_seq_num` BIGINT AS (IF(`localId` IS NULL, IFNULL(`seq_num`, 0), NULL)) VIRTUAL,
    `k_no_seq_num` TINYINT AS (`seq_num` IS NULL) VIRTUAL,
    UNIQUE `NodeState_identity` (`source`, `localId`, `k_time`, `k_no_time`, `k_node`),
    UNIQUE `NodeState_natural` (`time`, `nodeId`, `k_seq_num`, `k_no_seq_num`),
    INDEX `NodeState_node` (`nodeId`, `time`),
    FOREIGN KEY (`nodeId`) REFERENCES `Node` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE `Pushstatus` (
    `id` BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `time` DATETIME(6),
    `localtime` DATETIME(6),
    `hostname` VARCHAR(1000),
    `version` VARCHAR(1000)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- What follows is the receiver's own: no cogent-house tool knows it.

-- One row, locked by whoever looks for an entity and stores it: the same thing posted twice at once is stored once.
CREATE TABLE `packhorse_turn` (`id` INT NOT NULL PRIMARY KEY) ENGINE=InnoDB;
INSERT INTO `packhorse_turn` (`id`) VALUES (1);

-- A gateway as it last showed itself. Its token is kept as a hash; one token, one gateway. Collided: when an epoch
-- came back that it had given up, as two machines with one source id do.
CREATE TABLE `packhorse_gateway` (
    `source` CHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    `token` CHAR(64) CHARACTER SET ascii COLLATE ascii_bin UNIQUE,
    `name` VARCHAR(255),
    `seen` DATETIME(6),
    `hostname` VARCHAR(1000),
    `version` VARCHAR(1000),
    `told` DATETIME(6),
    `depth` BIGINT,
    `parked` BIGINT,
    `lag_seconds` BIGINT,
    `oldest_age_seconds` BIGINT,
    `collided` DATETIME(6)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- The highest seq that was ever seen of a stream in an epoch; the epochs of a stream are numbered as they began.
CREATE TABLE `packhorse_run` (
    `source` CHAR(32) NOT NULL,
    `epoch` CHAR(16) NOT NULL,
    `stream` VARCHAR(20) NOT NULL,
    `highest` BIGINT NOT NULL,
    `began` BIGINT NOT NULL,
    PRIMARY KEY (`source`, `epoch`, `stream`)
) ENGINE=InnoDB DEFAULT CHARSET=ascii COLLATE=ascii_bin;

-- Requests of which every row is stored: an identical repeat is known by its receipt. Written with the rows, in one transaction.
CREATE TABLE `packhorse_receipt` (
    `source` CHAR(32) NOT NULL,
    `epoch` CHAR(16) NOT NULL,
    `stream` VARCHAR(20) NOT NULL,
    `first_seq` BIGINT NOT NULL,
    `end_seq` BIGINT NOT NULL,
    `row_count` BIGINT NOT NULL,
    `digest` CHAR(64) NOT NULL,
    PRIMARY KEY (`source`, `epoch`, `stream`, `first_seq`)
) ENGINE=InnoDB DEFAULT CHARSET=ascii COLLATE=ascii_bin;
