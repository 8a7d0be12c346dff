"""What Dynamo is told, guards of compiled code, and asked: which code it left uncompiled."""
