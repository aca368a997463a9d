<?php
// Pushes a text to all connections of a user:
//
//	PUSH_TOKEN=... php examples/push/push.php tom "hello from PHP"
//
// or, from your own code:
//
//	require 'push.php';
//	use Push\Gateway;
//	Gateway::$token = getenv('PUSH_TOKEN');
//	Gateway::sendToUid('tom', 'hello');
//
// The methods are called as those of GatewayWorker's GatewayClient are.

declare(strict_types=1);

namespace Push;

final class Gateway
{
    public static string $url = 'http://127.0.0.1:4480';
    public static string $token = '';
    public static int $timeout = 10; // seconds

    // ---- Messages. Each returns how many connections it was queued for.

    public static function sendToAll(string $message, ?array $clientIds = null, string|array|null $excludeClientIds = null): int
    {
        return self::send($clientIds === null ? ['all' => true] : ['clients' => $clientIds], $message, $excludeClientIds);
    }

    public static function sendToClient(string $clientId, string $message): int
    {
        return self::send(['clients' => [$clientId]], $message);
    }

    public static function sendToUid(string|int|array $uid, string $message): int
    {
        return self::send(['users' => self::names($uid)], $message);
    }

    public static function sendToGroup(string|int|array $group, string $message, string|array|null $excludeClientIds = null): int
    {
        return self::send(['groups' => self::names($group)], $message, $excludeClientIds);
    }

    // ---- Connections

    public static function closeClient(string $clientId, ?string $message = null): int
    {
        if ($message !== null) {
            self::sendToClient($clientId, $message); // goes out before the close does
        }
        return self::command('POST', '/close', ['to' => ['clients' => [$clientId]]]);
    }

    public static function isOnline(string $clientId): bool
    {
        return self::count(['client' => $clientId]) > 0;
    }

    public static function getAllClientIdList(): array
    {
        return array_column(self::clients([]), 'id');
    }

    public static function getAllClientIdCount(): int
    {
        return self::count([]);
    }

    // ---- Users

    public static function bindUid(string $clientId, string|int $uid): int
    {
        return self::command('POST', '/bind', ['to' => ['clients' => [$clientId]], 'user' => (string) $uid]);
    }

    public static function unbindUid(string $clientId): int
    {
        return self::command('POST', '/unbind', ['to' => ['clients' => [$clientId]]]);
    }

    public static function isUidOnline(string|int $uid): bool
    {
        return self::count(['user' => $uid]) > 0;
    }

    public static function getClientIdByUid(string|int $uid): array
    {
        return array_column(self::clients(['user' => $uid]), 'id');
    }

    public static function getUidByClientId(string $clientId): ?string
    {
        return self::client($clientId)['user'] ?? null;
    }

    public static function getAllUidList(): array
    {
        return array_column(self::all('/users', 'names', []), 'name');
    }

    // ---- Groups

    public static function joinGroup(string $clientId, string|int|array $group): int
    {
        return self::command('POST', '/join', ['to' => ['clients' => [$clientId]], 'groups' => self::names($group)]);
    }

    public static function leaveGroup(string $clientId, string|int|array $group): int
    {
        return self::command('POST', '/leave', ['to' => ['clients' => [$clientId]], 'groups' => self::names($group)]);
    }

    public static function ungroup(string|int $group): int
    {
        return self::command('POST', '/leave', ['to' => ['groups' => [(string) $group]], 'groups' => [(string) $group]]);
    }

    public static function getClientIdListByGroup(string|int $group): array
    {
        return array_column(self::clients(['group' => $group]), 'id');
    }

    public static function getUidListByGroup(string|int $group): array
    {
        return array_values(array_unique(array_column(self::clients(['group' => $group]), 'user')));
    }

    public static function getClientIdCountByGroup(string|int $group): int
    {
        return self::count(['group' => $group]);
    }

    public static function getAllGroupIdList(): array
    {
        return array_column(self::all('/groups', 'names', []), 'name');
    }

    // ---- Sessions

    public static function getSession(string $clientId): ?array
    {
        $client = self::client($clientId);
        return $client === null ? null : $client['session'] ?? [];
    }

    public static function setSession(string $clientId, array $session): int
    {
        return self::command('PUT', '/session', ['to' => ['clients' => [$clientId]], 'session' => (object) $session]);
    }

    /** Entries that are null are removed. */
    public static function updateSession(string $clientId, array $session): int
    {
        return self::command('PATCH', '/session', ['to' => ['clients' => [$clientId]], 'session' => (object) $session]);
    }

    public static function getClientSessionsByGroup(string|int $group): array
    {
        return array_column(self::clients(['group' => $group, 'fields' => 'session']), 'session', 'id');
    }

    // ---- How it is done

    private static function send(array $to, string $message, string|array|null $excludeClientIds = null): int
    {
        if ($excludeClientIds !== null) {
            $to['except'] = ['clients' => self::names($excludeClientIds)];
        }
        $text = preg_match('//u', $message) === 1; // what is no UTF-8 cannot be a text message
        return self::command('POST', '/send', ['to' => $to] + ($text ? ['text' => $message] : ['binary' => base64_encode($message)]));
    }

    private static function command(string $method, string $path, array $body): int
    {
        return self::call($method, $path, $body)['clients'];
    }

    private static function count(array $of): int
    {
        return self::call('GET', rtrim('/count?' . http_build_query($of), '?'))['clients'];
    }

    /** What is known of a client, or null if it is gone. */
    private static function client(string $clientId): ?array
    {
        return self::call('GET', '/clients/' . rawurlencode($clientId), null, [404]);
    }

    private static function clients(array $query): array
    {
        return self::all('/clients', 'clients', $query);
    }

    /** All pages of a list. */
    private static function all(string $path, string $field, array $query): array
    {
        $all = [];
        $query += ['limit' => 1000, 'cursor' => ''];
        do {
            $page = self::call('GET', $path . '?' . http_build_query($query));
            array_push($all, ...$page[$field]);
            $query['cursor'] = $page['next'] ?? '';
        } while ($query['cursor'] !== '');
        return $all;
    }

    private static function names(string|int|array $names): array
    {
        return array_map(strval(...), array_values((array) $names));
    }

    /** One call. The answer is null for a status in $absent. */
    private static function call(string $method, string $path, ?array $body = null, array $absent = []): ?array
    {
        $header = ['Authorization: Bearer ' . self::$token];
        if ($body !== null) {
            $header[] = 'Content-Type: application/json';
            $header[] = 'Idempotency-Key: ' . bin2hex(random_bytes(16)); // tried again, it is done once
        }
        for ($try = 1; ; $try++) {
            $curl = curl_init(self::$url . $path);
            curl_setopt_array($curl, [
                CURLOPT_CUSTOMREQUEST => $method,
                CURLOPT_HTTPHEADER => $header,
                CURLOPT_RETURNTRANSFER => true,
                CURLOPT_TIMEOUT => self::$timeout,
            ]);
            if ($body !== null) {
                curl_setopt($curl, CURLOPT_POSTFIELDS, json_encode($body, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE));
            }
            $answer = curl_exec($curl);
            $status = curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
            if ($answer !== false && $status !== 503) {
                break;
            }
            if ($try === 3) {
                throw new \RuntimeException("$method $path: " . ($answer === false ? curl_error($curl) : $answer));
            }
            usleep(200_000 * $try);
        }
        if (in_array($status, $absent, true)) {
            return null;
        }
        $result = json_decode($answer, true, 512, JSON_THROW_ON_ERROR | JSON_BIGINT_AS_STRING);
        if ($status !== 200) {
            throw new \RuntimeException("$method $path: $status {$result['error']['code']}: {$result['error']['message']}");
        }
        return $result;
    }
}

// The rest runs only when this file is what php was given.
if (realpath($_SERVER['SCRIPT_FILENAME'] ?? '') === __FILE__) {
    if ($argc !== 3) {
        fwrite(STDERR, "usage: PUSH_TOKEN=... php push.php <user> <text>\n");
        exit(2);
    }
    Gateway::$url = getenv('PUSH_URL') ?: Gateway::$url;
    Gateway::$token = getenv('PUSH_TOKEN') ?: '';
    try {
        echo json_encode(['clients' => Gateway::sendToUid($argv[1], $argv[2])]), "\n";
    } catch (\RuntimeException $e) {
        fwrite(STDERR, $e->getMessage() . "\n");
        exit(1);
    }
}
