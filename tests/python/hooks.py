"""Logs in anew for each case that schemathesis makes: some cases end their login, or delete their account."""

import json
import os
import urllib.request
import uuid

import schemathesis


@schemathesis.auth(refresh_interval=None)
class Login:
    def get(self, case, context):
        # Accounts that cases change must not meet each other; conversations should, or there would be none to read.
        user = f"case-{uuid.uuid4()}" if case.path.startswith("/auth/") else "everybody"
        request = urllib.request.Request(
            os.environ["AUTH_URL"] + "/auth/login",
            json.dumps({"user_id": user}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)["access_token"]

    def set(self, case, token, context):
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {token}"}
