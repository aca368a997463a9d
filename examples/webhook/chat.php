<?php
// The chat of examples/chat in PHP: one file, no library, no process that runs on.
// Caddy holds the connections and posts here what visitors do; the answer says what
// is to be sent to whom. The messages are those in examples/chat/chat.go, the
// requests and answers are explained in docs/webhook.md.
declare(strict_types=1);

const MAX_NAME = 32; // characters, for rooms, too
const MAX_TEXT = 4000;

// ---- From here to the next line like this: the same in every script.

ini_set('display_errors', '0'); // a warning in the answer would make it no JSON

$body = file_get_contents('php://input');
if (!is_signed($body, (string) getenv('WEBHOOK_SECRET'))) {
    http_response_code(401);
    exit('the signature is missing or wrong: is WEBHOOK_SECRET the same here and in Caddy?');
}
$commands = [];
foreach (json_decode($body, true, 64, JSON_THROW_ON_ERROR)['events'] as $event) {
    match ($event['event']) {
        'connect' => null, // everybody may come in; http_response_code(403) would refuse
        'message' => on_message($event['client'], $event['message']['text'] ?? ''),
        'close' => on_close($event['client']),
    };
}
header('Content-Type: application/json');
$flags = JSON_THROW_ON_ERROR | JSON_INVALID_UTF8_SUBSTITUTE | JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES;
echo json_encode(['commands' => $commands], $flags);
exit;

// is_signed checks the signature as standardwebhooks.com describes it.
function is_signed(string $body, string $secret): bool
{
    $id = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
    $time = $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '';
    if ($secret === '' || !ctype_digit($time) || abs(time() - (int) $time) > 300) {
        return false;
    }
    $key = str_starts_with($secret, 'whsec_') ? base64_decode(substr($secret, 6), true) : $secret;
    if ($key === false || $key === '') {
        return false;
    }
    $expected = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$time.$body", $key, true));
    foreach (explode(' ', $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '') as $signature) {
        if (hash_equals($expected, $signature)) {
            return true;
        }
    }
    return false;
}

// send_to is Gateway::sendToClient, sendToGroup and the others: $to is who.
function send_to(array $to, array $message): void
{
    global $commands;
    $commands[] = ['send' => ['to' => $to, 'json' => $message]];
}

// ---- The chat: what Events.php is in workerman-chat.

function on_message(array $client, string $text): void
{
    $m = json_decode($text, true);
    $type = is_array($m) && is_string($m['type'] ?? null) ? $m['type'] : '';
    $field = fn (string $name) => is_string($m[$name] ?? null) ? $m[$name] : '';
    match ($type) {
        'login' => login($client, trim($field('name')), trim($field('room'))),
        'say' => say($client, $field('text'), $field('to')),
        'pong' => null, // that it came is what the heartbeat wants to know
        default => complain($client, $type, 'unknown type: allowed are login, say, pong'),
    };
}

function login(array $client, string $name, string $room): void
{
    global $commands;
    foreach (['name' => $name, 'room' => $room] as $what => $value) {
        if (!preg_match('/^[^\p{Cc}]{1,' . MAX_NAME . '}$/uD', $value)) {
            complain($client, 'login', "the $what must have 1 to " . MAX_NAME . ' characters, and no control characters');
            return;
        }
    }
    if (isset($client['session']['room'])) {
        complain($client, 'login', 'you are logged in already: connect again for another name or room');
        return;
    }
    $self = ['clients' => [$client['id']]];
    $commands[] = ['update_session' => ['to' => $self, 'session' => ['name' => $name, 'room' => $room]]];
    $commands[] = ['join' => ['to' => $self, 'groups' => [group($room)]]];

    $members = members(fn (array $all) => $all + [$client['id'] => ['name' => $name, 'room' => $room]]);
    $list = [];
    foreach ($members as $id => $member) {
        if ($member['room'] === $room) {
            $list[] = ['client' => (string) $id, 'name' => $member['name']];
        }
    }
    send_to($self, news('welcome', $client['id'], $name) + ['room' => $room, 'members' => $list]);
    send_to(['groups' => [group($room)], 'except' => $self], news('login', $client['id'], $name));
}

function say(array $client, string $text, string $to): void
{
    $room = $client['session']['room'] ?? null;
    $length = preg_match_all('/./us', $text);
    if ($room === null) {
        complain($client, 'say', 'log in first');
    } elseif (trim($text) === '' || $length < 1 || $length > MAX_TEXT) {
        complain($client, 'say', 'the text must have 1 to ' . MAX_TEXT . ' characters');
    } elseif ($to === '') {
        send_to(['groups' => [group($room)]], news('said', $client['id'], $client['session']['name']) + ['text' => $text]);
    } elseif ((members()[$to]['room'] ?? null) !== $room) {
        complain($client, 'say', 'nobody with this client id is in the room');
    } else {
        send_to(['clients' => [$to, $client['id']]], news('said', $client['id'], $client['session']['name']) + ['text' => $text, 'to' => $to]);
    }
}

// on_close may be called twice for a client: the second time it is not in the list.
function on_close(array $client): void
{
    $gone = members()[$client['id']] ?? null;
    if ($gone === null) {
        return;
    }
    members(fn (array $all) => array_diff_key($all, [$client['id'] => 0]));
    send_to(['groups' => [group($gone['room'])]], news('logout', $client['id'], $gone['name']));
}

function group(string $room): string
{
    return "chat:$room";
}

function news(string $type, string $client, string $name): array
{
    return ['type' => $type, 'client' => $client, 'name' => $name, 'time' => gmdate('Y-m-d\TH:i:s\Z')];
}

function complain(array $client, string $request, string $error): void
{
    send_to(['clients' => [$client['id']]], ['type' => 'error', 'request' => substr($request, 0, 32), 'error' => $error]);
}

// members returns who is logged in, by client id, and changes it if asked. A file
// is enough for a demo; with more to remember it is a table in your database.
function members(?callable $change = null): array
{
    $file = fopen(getenv('CHAT_STATE') ?: sys_get_temp_dir() . '/caddy-websocket-chat.json', 'c+');
    flock($file, LOCK_EX);
    $all = json_decode((string) stream_get_contents($file), true) ?: [];
    if ($change !== null) {
        $all = $change($all);
        // Ids begin with a name that Caddy has from its start to its end: who has
        // another one was there when it last crashed, and nobody reported him gone.
        $newest = explode('-', (string) array_key_last($all))[0];
        $all = array_filter($all, fn ($id) => str_starts_with((string) $id, "$newest-"), ARRAY_FILTER_USE_KEY);
        ftruncate($file, 0);
        rewind($file);
        fwrite($file, json_encode($all, JSON_THROW_ON_ERROR));
    }
    fclose($file);
    return $all;
}
